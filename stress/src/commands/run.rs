//! `cargo stress run`: a bank under load, measured, and what becomes of the report.

use stress::load::LoadKind;
use stress::measure::{self, BalancerName, MeasureOptions, Progress, Report};
use stress::reports::Summary;
use stress::steps::Steps;
use stress::{Error, install};

use super::{at_work, report};

pub(super) fn run(options: &MeasureOptions) -> Result<(), Error> {
    options.check()?;
    // Before the work: a wrong path should not cost the user the run.
    let earlier = options.against.as_deref().map(Report::read).transpose()?;
    if options.running.is_none() {
        options.stack.groups()?;
    }
    let (report, baseline) = at_work(|place| {
        let generator = if options.load == LoadKind::Open { &install::PYTHON } else { &install::WRK };
        let is_haproxy = options.stack.balancer == BalancerName::Haproxy;
        let balancer = if is_haproxy { &install::HAPROXY } else { &install::NGINX };
        place.install(&[&install::POSTGRES, balancer, generator])?;
        measure::measure(options, place, &Progress::shown())
    })?;
    if let Some(baseline) = &baseline {
        Steps::Printed.line(&baseline.tables());
    }
    tell(&report, baseline.or(earlier).as_ref());
    if let Some(directory) = &options.out {
        let [json, svg] = report.write_into(directory)?;
        Steps::Printed.line(&format!("written: {} and {}", json.display(), svg.display()));
    }
    if let Some(directory) = &options.keep {
        let directory = Some(directory).filter(|directory| !directory.as_os_str().is_empty());
        report::keep(directory, &Summary::of_report(&report), Some(("svg", report.chart()?.as_bytes())))?;
    }
    Ok(())
}

fn tell(report: &Report, earlier: Option<&Report>) {
    Steps::Printed.line(&report.tables());
    if let Some(cpus) = report.cases.iter().find_map(|case| case.median.disturbance()) {
        Steps::Printed.line(&format!(
            "Others used {cpus:.2} CPU meanwhile, so these figures are worse than they could be: repeat it later.\n"
        ));
    }
    if let Some(earlier) = earlier {
        Steps::Printed.line(&report.ratios(earlier));
    }
}
