//! Real PostgreSQL and nginx, started, broken and stopped. A shell script stands in for the server: what counts here
//! is how processes are handled.

#![expect(
    clippy::unwrap_used,
    reason = "a panic is how a test fails; clippy excepts test functions, not their helpers"
)]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use stress::cgroup::{Limits, Parent};
use stress::files;
use stress::http::get_status;
use stress::throwaway::Throwaway;
use stress::wait::{self, Interrupt};
use stress::{
    Balancer, BalancerOptions, Error, Instance, InstanceOptions, Postgres, PostgresOptions, Readiness, Signal,
};

#[test]
fn postgres_runs_the_files_in_order_names_a_refused_line_and_leaves_nothing() {
    let files = Throwaway::new("test").unwrap();
    let file = |name: &str, sql: &str| fs::write(files.path().join(name), sql).unwrap();
    file("2.sql", "INSERT INTO t VALUES (7); INSERT INTO t VALUES (8);");
    file("1.sql", "CREATE TABLE t (n integer);");
    file("0.txt", "not sql");

    let postgres = Postgres::start(&PostgresOptions::default()).unwrap();
    postgres.create_database("bank").unwrap();
    postgres.apply_sql("bank", files.path()).unwrap();
    let sum: i64 = postgres.connect("bank").unwrap().query_one("SELECT sum(n) FROM t", &[]).unwrap().get(0);
    assert_eq!(sum, 15);
    file("1.sql", "SELECT 1;\n\nINSERT INTO u VALUES (1);\n");
    let refusal = postgres.apply_sql("bank", files.path()).unwrap_err().to_string();
    assert!(refusal.contains("1.sql:3: ERROR relation \"u\" does not exist"), "{refusal}");

    let (pid, url) = (postgres.pid(), postgres.url("bank"));
    let directory = PathBuf::from(url.split_once("host=").unwrap().1);
    assert!(directory.exists());
    drop(postgres);
    assert!(!is_running(pid) && !directory.exists() && !directory.parent().unwrap().exists());
}

#[test]
fn durable_data_survives_a_crash() {
    let durable = PostgresOptions { is_durable: true, ..PostgresOptions::default() };
    let mut postgres = Postgres::start(&durable).unwrap();
    postgres.connect("postgres").unwrap().batch_execute("CREATE TABLE t AS SELECT 42 AS n").unwrap();

    postgres.kill();
    assert!(postgres.connect("postgres").is_err());
    postgres.start_again().unwrap();
    let n: i32 = postgres.connect("postgres").unwrap().query_one("SELECT n FROM t", &[]).unwrap().get(0);
    assert_eq!(n, 42);
}

#[test]
fn a_setting_that_postgres_refuses_is_in_the_error() {
    let settings = vec![("shared_bufers".to_owned(), "1MB".to_owned())];
    let error = Postgres::start(&PostgresOptions { settings, ..PostgresOptions::default() }).unwrap_err();
    let Error::Service { name, tail, .. } = error else { panic!("{error}") };
    assert_eq!(name, "postgresql");
    assert!(tail.contains("shared_bufers"), "{tail}");
}

#[test]
fn an_instance_is_ready_when_healthy_and_ends_on_sigterm() {
    let healthy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = healthy.local_addr().unwrap().to_string();
    let answers = thread::spawn(move || {
        for status in ["503 Service Unavailable", "200 OK"] {
            let (mut stream, _) = healthy.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]).unwrap();
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
    });
    let stand_in = StandIn::new(&format!(
        "trap 'echo asked; exit 3' TERM
         echo \"metrics on $METRICS_LISTEN\"; echo 'x] listening on {address}' >&2; while :; do sleep 0.01; done"
    ));

    let mut instance = Instance::start(&stand_in.options()).unwrap();
    answers.join().unwrap();
    assert_eq!(instance.addresses(), [address]);
    assert_eq!(instance.metrics_address().as_deref(), Some("127.0.0.1:0"));

    instance.signal(Signal::TERM).unwrap();
    assert_eq!(instance.wait_exit(PATIENCE).unwrap().code(), Some(3));
    assert!(instance.log().ends_with("asked\n"), "{}", instance.log());
    assert!(instance.signal(Signal::TERM).is_err());
}

#[test]
fn an_instance_that_ends_gives_its_status_and_its_last_words() {
    let stand_in = StandIn::new("echo 'LISTEN: what is this?' >&2; exit 2");
    let error = Instance::start(&stand_in.options()).unwrap_err().to_string();
    assert!(error.starts_with("webapi ended with exit status: 2;"), "{error}");
    assert!(error.contains("LISTEN: what is this?"), "{error}");
}

#[test]
fn a_panic_stops_what_runs() {
    let (_stand_in, options) = StandIn::sleeping();
    let (tell, told) = std::sync::mpsc::channel();
    let panicked = thread::spawn(move || {
        let instance = Instance::start(&options).unwrap();
        tell.send(instance.pid()).unwrap();
        panic!("as a failing test does");
    });
    assert!(panicked.join().is_err());
    assert!(!is_running(told.recv().unwrap()));
}

/// The kernel takes the end of a thread for the end of a parent. A set-up thread may end before its services do.
#[test]
fn a_service_outlives_the_thread_that_started_it() {
    let (_stand_in, options) = StandIn::sleeping();
    let starter =
        thread::spawn(move || (Instance::start(&options).unwrap(), fs::read_link("/proc/thread-self")));
    let (mut instance, thread) = starter.join().unwrap();
    let thread = Path::new("/proc").join(thread.unwrap());
    eventually("the thread is gone", || !thread.exists());
    // A signal that the kernel sent is delivered by now, or is so within moments.
    assert_eq!(instance.wait_exit(Duration::from_millis(200)), None);
}

/// Runs itself as the bench that is killed.
#[test]
fn services_end_when_the_bench_is_killed() {
    const PID_FILE: &str = "STRESS_TEST_PID_FILE";
    let (_stand_in, options) = StandIn::sleeping();
    if let Ok(pid_file) = std::env::var(PID_FILE) {
        let instance = Instance::start(&options).unwrap();
        fs::write(pid_file, format!("{}\n", instance.pid())).unwrap();
        thread::park();
    }

    let directory = Throwaway::new("test").unwrap();
    let pid_file = directory.path().join("pid");
    let mut bench = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "services_end_when_the_bench_is_killed"])
        .env(PID_FILE, &pid_file)
        // What the killed bench cannot remove goes with our directory.
        .env("TMPDIR", directory.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the bench runs", || fs::read_to_string(&pid_file).is_ok_and(|pid| pid.ends_with('\n')));
    let pid = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    assert!(is_running(pid));

    bench.kill().unwrap();
    bench.wait().unwrap();
    eventually("the service is gone", || !is_running(pid));
}

#[test]
fn several_nginx_run_side_by_side_and_free_their_ports() {
    let stand_in = StandIn::nginx(NGINX_CONF);
    let both = [(); 2].map(|()| Balancer::start(&stand_in.nginx_options()).unwrap());
    let addresses = both.each_ref().map(Balancer::address);
    assert_ne!(addresses[0], addresses[1]);
    for address in addresses {
        assert_eq!(get_status(&address.to_string(), "/").unwrap(), 200);
    }
    drop(both);
    for address in addresses {
        TcpListener::bind(address).unwrap();
    }
}

#[test]
fn no_nginx_worker_survives_its_killed_master() {
    let stand_in = StandIn::nginx(NGINX_CONF);
    let nginx = Balancer::start(&stand_in.nginx_options()).unwrap();
    let address = nginx.address();
    nginx.signal(Signal::KILL).unwrap();
    eventually("the master is gone", || nginx.has_exited());
    drop(nginx);
    eventually("the port is free", || TcpListener::bind(address).is_ok());
}

#[test]
fn nginx_says_what_it_does_not_like() {
    let stand_in = StandIn::nginx(&NGINX_CONF.replace("access_log", "acces_log"));
    let error = Balancer::start(&stand_in.nginx_options()).unwrap_err().to_string();
    assert!(error.starts_with("nginx -t ended with exit status: 1;"), "{error}");
    assert!(error.contains("unknown directive \"acces_log\""), "{error}");

    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let stand_in = StandIn::nginx(NGINX_CONF);
    let port = taken.local_addr().unwrap().port();
    let error =
        Balancer::start(&BalancerOptions { port, ..stand_in.nginx_options() }).unwrap_err().to_string();
    assert!(error.contains("Address already in use"), "{error}");
}

#[test]
fn limits_are_applied_and_their_groups_removed() {
    let parent = match Parent::find() {
        Ok(parent) => parent,
        Err(why) => return stress::left_out("limits", &why),
    };
    let limits = Limits { cpu_thousandths: 500, memory_bytes: 200 << 20 };
    let default_period = parent.group("test", limits).unwrap().account.limits();
    assert_eq!(default_period, Some((limits, Duration::from_millis(100))));
    let group = parent.with_cpu_period_ms(20).group("test", limits).unwrap();
    assert_eq!(group.account.limits(), Some((limits, Duration::from_millis(20))));
    let group = std::sync::Arc::new(group);
    let members: Vec<PathBuf> = group.members_files().collect();
    let options = PostgresOptions { group: Some(group), ..PostgresOptions::default() };
    let postgres = Postgres::start(&options).unwrap();
    drop(options);

    let pid = postgres.pid().to_string();
    for file in &members {
        let inside = fs::read_to_string(file).unwrap();
        assert!(inside.lines().any(|member| member == pid), "{pid} is not in {}", file.display());
    }
    let account = &postgres.group.as_ref().unwrap().account;
    assert!(account.cpu_usage().unwrap() > Duration::ZERO);
    assert!((1..=200 << 20).contains(&account.memory_peak_bytes().unwrap()));
    assert_eq!(account.out_of_memory_kills(), 0);
    drop(postgres);
    assert!(members.iter().all(|file| !file.parent().unwrap().exists()));
}

#[test]
fn a_service_over_its_memory_limit_is_said_to_be() {
    let parent = match Parent::find() {
        Ok(parent) => parent,
        Err(why) => return stress::left_out("the memory limit", &why),
    };
    let group = parent.group("test", Limits { cpu_thousandths: 1000, memory_bytes: 20 << 20 }).unwrap();
    // The shell holds what it reads.
    let stand_in = StandIn::new("x=$(head -c 100000000 /dev/zero | tr '\\0' x)");
    let options = InstanceOptions { group: Some(group.into()), ..stand_in.options() };
    let error = Instance::start(&options).unwrap_err().to_string();
    assert!(error.contains("more than its memory limit"), "{error}");
}

/// Files in place of the project's: an executable for the server, or a configuration for nginx.
struct StandIn(Throwaway);

impl StandIn {
    fn new(script: &str) -> StandIn {
        let directory = Throwaway::new("test").unwrap();
        files::write_executable(directory.path().join("server"), &format!("#!/bin/sh\n{script}\n")).unwrap();
        StandIn(directory)
    }

    /// Ready at once, with nobody to ask for its health.
    fn sleeping() -> (StandIn, InstanceOptions) {
        let stand_in = StandIn::new("echo 'listening on 127.0.0.1:1'; exec sleep 1000");
        let options = InstanceOptions { readiness: Readiness::Listening, ..stand_in.options() };
        (stand_in, options)
    }

    fn nginx(configuration: &str) -> StandIn {
        let directory = Throwaway::new("test").unwrap();
        fs::write(directory.path().join("template.conf"), configuration).unwrap();
        StandIn(directory)
    }

    fn options(&self) -> InstanceOptions {
        InstanceOptions::new(self.0.path().join("server"), "postgresql://nobody@/nothing")
    }

    fn nginx_options(&self) -> BalancerOptions {
        let sockets = ["1.sock", "2.sock"].map(|name| self.0.path().join(name));
        BalancerOptions::nginx(self.0.path().join("template.conf"), sockets)
    }
}

fn is_running(pid: u32) -> bool {
    // A zombie has ended; whoever adopted it has only not looked yet.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let seen = wait::until(PATIENCE, &Interrupt::default(), || Ok(is_so().then_some(())));
    assert!(seen.unwrap().is_some(), "not within {PATIENCE:?}: {what}");
}

const PATIENCE: Duration = Duration::from_secs(20);
const NGINX_CONF: &str = "\
pid /tmp/nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    upstream webapi {
        server unix:/run/rinha/webapi1.sock;
        server unix:/run/rinha/webapi2.sock;
    }
    server { listen 9999; location / { return 200; } }
}
";
