//! The stack as users have it, nginx in front of two instances, but on free ports and without limits.

use stress::throwaway::Throwaway;
use stress::{Balancer, BalancerOptions, Instance, InstanceOptions, Signal};

use super::bank::options;
use super::{Database, Wire, wait_for, workspace};

/// nginx, two instances and a database of their own. Dropped in this order.
pub(crate) struct Balanced {
    pub(crate) nginx: Balancer,
    pub(crate) instances: [Instance; 2],
    pub(crate) database: Database,
    options: [InstanceOptions; 2],
    _sockets: Throwaway,
}

impl Balanced {
    /// With this file of `nginx/`.
    pub(crate) fn open(configuration: &str) -> Balanced {
        let database = Database::new();
        let url = database.url();
        Balanced::over(database, &url, configuration, &[])
    }

    /// With these settings of both instances.
    pub(crate) fn open_with(settings: &[(&str, &str)]) -> Balanced {
        let database = Database::new();
        let url = database.url();
        Balanced::over(database, &url, "nginx.conf", settings)
    }

    /// Over this database, which the instances reach through `url`, with these settings.
    pub(crate) fn over(
        database: Database,
        url: &str,
        configuration: &str,
        settings: &[(&str, &str)],
    ) -> Balanced {
        let directory = Throwaway::new("balanced").expect("make a directory");
        let sockets = ["webapi1", "webapi2"].map(|name| directory.path().join(format!("{name}.sock")));
        let options = sockets.each_ref().map(|socket| {
            let listen = vec![format!("unix:{}", socket.display())];
            InstanceOptions { listen, ..options(url, settings) }
        });
        let instances =
            options.each_ref().map(|options| Instance::start(options).expect("start an instance"));
        let template = workspace().join("nginx").join(configuration);
        let nginx = Balancer::start(&BalancerOptions::nginx(template, sockets)).expect("start nginx");
        Balanced { nginx, instances, database, options, _sockets: directory }
    }

    /// Where nginx listens.
    pub(crate) fn address(&self) -> String {
        self.nginx.address().to_string()
    }

    /// A connection to nginx.
    pub(crate) fn connect(&self) -> Wire {
        Wire::connect(&self.address())
    }

    /// Ends an instance at once, as a crash would.
    pub(crate) fn kill_instance(&mut self, index: usize) {
        self.instances[index].signal(Signal::KILL).expect("send a signal");
        wait_for("the end of an instance", || self.instances[index].wait_exit(super::wire::PATIENCE));
    }

    /// Stops an instance as a deployment does, waits until it has ended, and starts it again.
    pub(crate) fn restart_instance(&mut self, index: usize) {
        self.instances[index].signal(Signal::TERM).expect("send a signal");
        let status = self.instances[index].wait_exit(super::wire::PATIENCE).expect("it ends");
        assert!(status.success(), "{status}: {}", self.instances[index].log());
        self.start_instance(index);
    }

    /// Has nginx read its configuration again, and waits until new workers are there. The old ones keep the
    /// connections that they have.
    pub(crate) fn reload_nginx(&self) {
        let pid = self.nginx.pid();
        let workers = || {
            let children =
                std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            children.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        let old = workers();
        self.nginx.signal(Signal::HUP).expect("send a signal");
        wait_for("a new worker", || workers().iter().any(|worker| !old.contains(worker)).then_some(()));
    }

    /// Starts an instance that has ended again, where it was before, and waits until it is ready.
    pub(crate) fn start_instance(&mut self, index: usize) {
        self.instances[index] = Instance::start(&self.options[index]).expect("start an instance again");
    }
}
