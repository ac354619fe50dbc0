//! Probes: whether a service is ready, and whether it is alive.
//!
//! Invariant: a probe only reports its results; the launcher decides what follows. Its only effect on a service is the
//! request.

mod attempt;

use std::path::PathBuf;
use std::time::Duration;

use cloister_manifest::model::{Check, Live, Ready};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::launcher::Verdict;
use crate::owners::{Owners, ServicePort};

/// The first and the maximum pause between two readiness attempts: a fast service is found ready immediately, a slow
/// one is not disturbed. Ports and files have no event to wait for.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// Time limit of one readiness attempt.
const ATTEMPT_TIME: Duration = Duration::from_secs(2);

/// How long a readiness probe must fail before its error is reported, and the minimum time between reports of different
/// errors: a fast start need not be reported, and each report is stored.
const REPORT: Duration = Duration::from_millis(200);

/// The root of the service as the service sees it, and the application's root if that is unreachable.
#[derive(Clone, Debug)]
pub struct Roots(pub Vec<PathBuf>);

/// The service that is probed.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The service.
    pub service: String,
    /// The cgroups of the services.
    pub owners: Owners,
    /// Its files.
    pub roots: Roots,
}

/// Waits until a service is ready, and reports the probe's errors to `failed`: the first after [`REPORT`], and then
/// each new one, at most once in that time. It never returns for a service that reports its readiness itself.
pub async fn ready<F: Fn(String)>(what: Ready, subject: Subject, failed: F) {
    let probe = match what {
        Ready::Started => return,
        Ready::Tcp(port) => Probe::Tcp(subject.port(port)),
        Ready::Http { port, path } => Probe::Http(subject.port(port), path),
        Ready::File(path) => Probe::File(subject.roots, path),
        Ready::Log(_) | Ready::Notify => return std::future::pending().await,
    };
    let mut pause = FIRST_PAUSE;
    let (mut last, mut report_at) = (String::new(), Instant::now() + REPORT);
    while let Err(why) = probe.attempt(ATTEMPT_TIME).await {
        if Instant::now() >= report_at && why != last {
            report_at = Instant::now() + REPORT;
            failed(why.clone());
            last = why;
        }
        sleep(pause).await;
        pause = pause.saturating_mul(2).min(MAX_PAUSE);
    }
}

/// Checks periodically whether a service is alive, and reports each result. With a watchdog it does nothing: the
/// service sends pings.
pub async fn watch<F: Fn(Verdict)>(live: Live, subject: Subject, report: F) {
    let probe = match live.check {
        Check::Tcp(port) => Probe::Tcp(subject.port(port)),
        Check::Http { port, path } => Probe::Http(subject.port(port), path),
        Check::Watchdog => return,
    };
    let period = Duration::from_millis(live.interval_ms.max(1));
    let limit = Duration::from_millis(live.timeout_ms.max(1));
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset_at(Instant::now() + period);
    loop {
        ticks.tick().await;
        let alive = probe.attempt(limit).await.is_ok();
        report(if alive { Verdict::Alive } else { Verdict::Dead });
    }
}

impl Subject {
    fn port(&self, number: u16) -> ServicePort {
        self.owners.port(&self.service, number)
    }
}

/// The kinds of probes.
enum Probe {
    Tcp(ServicePort),
    Http(ServicePort, String),
    File(Roots, String),
}

impl Probe {
    /// Makes one attempt with a time limit. The error is human-readable.
    async fn attempt(&self, limit: Duration) -> Result<(), String> {
        let result = timeout(limit, self.run()).await;
        result.unwrap_or_else(|_| Err(format!("no response within {} ms", limit.as_millis())))
    }

    async fn run(&self) -> Result<(), String> {
        match self {
            Self::Tcp(port) => port.connect().await.map(drop).map_err(|error| error.to_string()),
            Self::Http(port, path) => match attempt::http(port, path).await {
                Ok(200..400) => Ok(()),
                Ok(code) => Err(format!("the response has status {code}")),
                Err(error) => Err(error.to_string()),
            },
            Self::File(roots, path) if roots.0.iter().any(|root| attempt::file(root, path)) => Ok(()),
            Self::File(..) => Err("it does not exist".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloister_net::own_cgroup;
    use std::sync::{Arc, Mutex};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// This process, as a service with these roots.
    fn subject(roots: Vec<PathBuf>) -> Subject {
        let owners = Owners::default();
        owners.started("web", own_cgroup().unwrap());
        Subject { service: "web".into(), owners, roots: Roots(roots) }
    }

    #[tokio::test]
    async fn a_port_is_ready_once_it_accepts() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let (errors, mut reported) = tokio::sync::mpsc::unbounded_channel();
        let failed = move |why| errors.send(why).unwrap();
        let waiting = tokio::spawn(ready(Ready::Tcp(port), subject(vec![]), failed));
        let why = reported.recv().await.unwrap();
        assert_eq!(why, format!("nothing listens on 127.0.0.1:{port} or [::1]:{port}"));
        let _listener = TcpListener::bind(("::1", port)).await.unwrap();
        waiting.await.unwrap();
        assert_eq!(reported.recv().await, None, "it is reported once");
    }

    #[tokio::test]
    async fn a_file_is_ready_once_it_exists_in_one_of_the_roots() {
        let folder = tempfile::tempdir().unwrap();
        let roots = vec![PathBuf::from("/nowhere"), folder.path().to_owned()];
        let waiting = tokio::spawn(ready(Ready::File("/run/up".into()), subject(roots), drop));
        std::fs::create_dir(folder.path().join("run")).unwrap();
        std::fs::write(folder.path().join("run/up"), "").unwrap();
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn a_server_that_stops_responding_with_success_is_reported_dead() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            for answer in ["HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 503 Busy\r\n\r\n", "nonsense\r\n\r\n"]
            {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 512];
                let read = stream.read(&mut request).await.unwrap();
                assert!(request[..read].starts_with(b"GET /health HTTP/1.1\r\n"));
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let check = Check::Http { port, path: "/health".into() };
        let live = Live { check, interval_ms: 1, timeout_ms: 1000, threshold: 1 };
        let (seen, verdicts) = (Arc::new(Mutex::new(Vec::new())), Arc::new(tokio::sync::Notify::new()));
        let task = tokio::spawn(watch(live, subject(vec![]), {
            let (seen, verdicts) = (Arc::clone(&seen), Arc::clone(&verdicts));
            move |verdict| {
                seen.lock().unwrap().push(verdict);
                verdicts.notify_one();
            }
        }));
        while seen.lock().unwrap().len() < 3 {
            verdicts.notified().await;
        }
        task.abort();
        assert_eq!(seen.lock().unwrap()[..3], [Verdict::Alive, Verdict::Dead, Verdict::Dead]);
    }
}
