//! Probes: is a service ready, and is it still alive?
//!
//! Its law: a probe asks and answers; what follows is the launcher's. It has no effect on a service but the question.

mod ask;

use std::path::PathBuf;
use std::time::Duration;

use cloister_manifest::model::{Check, Live, Ready};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::launcher::Verdict;
use crate::owners::{Owners, ServicePort};

/// The first pause between two readiness questions, and the longest: a quick service is found ready at once, a slow one
/// is not kept from its work. Ports and files have no event to wait for.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// How long one readiness question may take.
const ASK_TIME: Duration = Duration::from_secs(2);

/// How long something keeps a service from being ready before that is reported, and how often at most something new is: a
/// quick start is no news, and each report is written down.
const REPORT: Duration = Duration::from_millis(200);

/// The root of the service as the service sees it, and the application's root where that cannot be reached.
#[derive(Clone, Debug)]
pub struct Roots(pub Vec<PathBuf>);

/// Whom a probe asks.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The service.
    pub service: String,
    /// Whose ports are whose.
    pub owners: Owners,
    /// Its files.
    pub roots: Roots,
}

/// Waits until a service is ready, and passes on what kept it from that: what has lasted for [`REPORT`], and after that once in
/// that time what is new. It never returns for a service that says so itself.
pub async fn ready<F: Fn(String)>(what: Ready, subject: Subject, missed: F) {
    let question = match what {
        Ready::Started => return,
        Ready::Tcp(port) => Question::Tcp(subject.port(port)),
        Ready::Http { port, path } => Question::Http(subject.port(port), path),
        Ready::File(path) => Question::File(subject.roots, path),
        Ready::Log(_) | Ready::Notify => return std::future::pending().await,
    };
    let mut pause = FIRST_PAUSE;
    let (mut last, mut report_at) = (String::new(), Instant::now() + REPORT);
    while let Err(why) = question.ask(ASK_TIME).await {
        if Instant::now() >= report_at && why != last {
            report_at = Instant::now() + REPORT;
            missed(why.clone());
            last = why;
        }
        sleep(pause).await;
        pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
    }
}

/// Asks again and again whether a service is alive, and passes each verdict on. A watchdog asks nothing: there the service
/// speaks.
pub async fn watch<F: Fn(Verdict)>(live: Live, subject: Subject, tell: F) {
    let question = match live.check {
        Check::Tcp(port) => Question::Tcp(subject.port(port)),
        Check::Http { port, path } => Question::Http(subject.port(port), path),
        Check::Watchdog => return,
    };
    let period = Duration::from_millis(live.interval_ms.max(1));
    let limit = Duration::from_millis(live.timeout_ms.max(1));
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset_at(Instant::now() + period);
    loop {
        ticks.tick().await;
        let alive = question.ask(limit).await.is_ok();
        tell(if alive { Verdict::Alive } else { Verdict::Dead });
    }
}

impl Subject {
    fn port(&self, number: u16) -> ServicePort {
        self.owners.port(&self.service, number)
    }
}

/// What is asked.
enum Question {
    Tcp(ServicePort),
    Http(ServicePort, String),
    File(Roots, String),
}

impl Question {
    /// Asks once, for so long at most. An error is why the answer was no.
    async fn ask(&self, limit: Duration) -> Result<(), String> {
        let answer = timeout(limit, self.answer()).await;
        answer.unwrap_or_else(|_| Err(format!("no answer within {} ms", limit.as_millis())))
    }

    async fn answer(&self) -> Result<(), String> {
        match self {
            Self::Tcp(port) => port.connect().await.map(drop).map_err(|error| error.to_string()),
            Self::Http(port, path) => match ask::http(port, path).await {
                Ok(200..400) => Ok(()),
                Ok(code) => Err(format!("it was answered with status {code}")),
                Err(error) => Err(error.to_string()),
            },
            Self::File(roots, path) if roots.0.iter().any(|root| ask::file(root, path)) => Ok(()),
            Self::File(..) => Err("it is not there".to_owned()),
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

    /// This process, as a service of these roots.
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
        let (say, mut said) = tokio::sync::mpsc::unbounded_channel();
        let missed = move |why| say.send(why).unwrap();
        let waiting = tokio::spawn(ready(Ready::Tcp(port), subject(vec![]), missed));
        let why = said.recv().await.unwrap();
        assert_eq!(why, format!("nothing listens on 127.0.0.1:{port} or [::1]:{port}"));
        let _listener = TcpListener::bind(("::1", port)).await.unwrap();
        waiting.await.unwrap();
        assert_eq!(said.recv().await, None, "it is said once");
    }

    #[tokio::test]
    async fn a_file_is_ready_once_it_is_there_in_one_of_the_roots() {
        let folder = tempfile::tempdir().unwrap();
        let roots = vec![PathBuf::from("/nowhere"), folder.path().to_owned()];
        let waiting = tokio::spawn(ready(Ready::File("/run/up".into()), subject(roots), drop));
        std::fs::create_dir(folder.path().join("run")).unwrap();
        std::fs::write(folder.path().join("run/up"), "").unwrap();
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn a_server_that_stops_answering_well_is_found_dead() {
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
