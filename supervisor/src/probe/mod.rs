//! Probes: is a service ready, and is it still alive?
//!
//! Its law: a probe asks and answers; what follows is the launcher's. It has no effect on a service but the question.

mod ask;

use std::path::PathBuf;
use std::time::Duration;

use cloister_manifest::model::{Check, Live, Ready};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::launcher::Verdict;

/// The first pause between two readiness questions, and the longest: a quick service is found ready at once, a slow one
/// is not kept from its work. Ports and files have no event to wait for.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// How long one readiness question may take.
const ASK_TIME: Duration = Duration::from_secs(2);

/// The root of the service as the service sees it, and the application's root where that cannot be reached.
#[derive(Clone, Debug)]
pub struct Roots(pub Vec<PathBuf>);

/// Waits until a service is ready. It never returns for a service that says so itself.
pub async fn ready(what: Ready, roots: Roots) {
    let mut pause = FIRST_PAUSE;
    loop {
        let answered = match &what {
            Ready::Started => true,
            Ready::Tcp(port) => in_time(ASK_TIME, ask::tcp(*port)).await,
            Ready::Http { port, path } => in_time(ASK_TIME, ask::http(*port, path)).await,
            Ready::File(path) => roots.0.iter().any(|root| ask::file(root, path)),
            Ready::Log(_) | Ready::Notify => std::future::pending().await,
        };
        if answered {
            return;
        }
        sleep(pause).await;
        pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
    }
}

/// Asks again and again whether a service is alive, and passes each verdict on. A watchdog asks nothing: there the service
/// speaks.
pub async fn watch<F: Fn(Verdict)>(live: Live, tell: F) {
    let period = Duration::from_millis(live.interval_ms.max(1));
    let limit = Duration::from_millis(live.timeout_ms.max(1));
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset_at(Instant::now() + period);
    loop {
        ticks.tick().await;
        let alive = match &live.check {
            Check::Tcp(port) => in_time(limit, ask::tcp(*port)).await,
            Check::Http { port, path } => in_time(limit, ask::http(*port, path)).await,
            Check::Watchdog => return,
        };
        tell(if alive { Verdict::Alive } else { Verdict::Dead });
    }
}

async fn in_time<F: Future<Output = bool>>(limit: Duration, question: F) -> bool {
    timeout(limit, question).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_port_is_ready_once_it_accepts() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let waiting = tokio::spawn(ready(Ready::Tcp(port), Roots(vec![])));
        assert!(!ask::tcp(port).await);
        let _listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn a_file_is_ready_once_it_is_there_in_one_of_the_roots() {
        let folder = tempfile::tempdir().unwrap();
        let roots = Roots(vec![PathBuf::from("/nowhere"), folder.path().to_owned()]);
        let waiting = tokio::spawn(ready(Ready::File("/run/up".into()), roots));
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
        let task = tokio::spawn(watch(live, {
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
