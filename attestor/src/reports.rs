//! Reports of TDX and SEV-SNP, together with the event log.
//!
//! Invariant: each report is requested for one nonce, and again only if the entry was changed meanwhile and its caller still
//! waits. Nothing but evidence waits for the hardware: these platforms have no register
//! that events are extended into, so the log is written and read without the hardware. Report data confirms it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cloister_binding::eventlog::Event;
use cloister_sys::platform::Platform;
use cloister_sys::tsm::{INBLOB_LENGTH, Report, TsmError};

use crate::events::{Events, Published, Unrecorded};
use crate::exchange::{
    Answer, CERTIFICATES_LIMIT, Evidence, ModuleError, Reply, ReportError, Request, Values,
};

/// The kernel's names of the providers of reports (`drivers/virt/coco`), and their platforms.
const PROVIDERS: [(&str, Platform); 2] = [("tdx_guest", Platform::Tdx), ("sev_guest", Platform::Snp)];

/// Whether the caller of a request still waits.
pub(crate) type Wanted<'a> = &'a dyn Fn() -> bool;

/// The hardware: makes a report that contains these bytes. It may block, and begins nothing that is not wanted any more.
pub(crate) type Hardware =
    Box<dyn FnMut(&[u8; INBLOB_LENGTH], Wanted<'_>) -> Result<Report, TsmError> + Send>;

/// The hardware and the log, as the hardware's thread uses them.
pub(crate) struct Reports {
    platform: String,
    hardware: Hardware,
    recorder: Recorder,
}

impl Reports {
    /// The reports of this hardware.
    pub(crate) fn new(platform: &str, hardware: Hardware, events: Events) -> Self {
        let recorder = Recorder { platform: platform.into(), events: Arc::new(Mutex::new(events)) };
        Self { platform: platform.to_owned(), hardware, recorder }
    }

    /// Access to the log, for other threads.
    pub(crate) fn recorder(&self) -> Recorder {
        self.recorder.clone()
    }

    /// Performs a request.
    pub(crate) fn answer(&mut self, request: Request, wanted: Wanted<'_>) -> Answer {
        match self.recorder.answer(request) {
            Ok(answer) => answer,
            Err(values) => self.evidence(&values, wanted).map(Reply::Evidence),
        }
    }

    fn evidence(&mut self, values: &Values, wanted: Wanted<'_>) -> Result<Evidence, ModuleError> {
        let (report_data, events) = {
            let events = self.recorder.events();
            (values.report_data(&events.digests().head())?, events.snapshot())
        };
        let Report { provider, outblob, auxblob } =
            (self.hardware)(&report_data, wanted).map_err(ReportError::from)?;
        if !PROVIDERS.iter().any(|(name, platform)| *name == provider && platform.name() == self.platform) {
            return Err(ReportError::Provider(provider, self.platform.clone()).into());
        }
        if auxblob.len() > CERTIFICATES_LIMIT {
            return Err(ReportError::Certificates(auxblob.len()).into());
        }
        Ok(Evidence { document: outblob, certificates: auxblob, events })
    }
}

/// The event log of a platform that has no register for it. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    platform: Arc<str>,
    events: Arc<Mutex<Events>>,
}

impl Recorder {
    /// Answers a request that needs no hardware. Returns the values of one that does.
    pub(crate) fn answer(&self, request: Request) -> Result<Answer, Values> {
        let answer = match request {
            Request::Evidence(values) => return Err(values),
            Request::Log => Ok(Reply::Log(self.events().snapshot())),
            Request::Extend { service, label, data } => {
                self.record(|events| events.record(&service, &label, &data))
            }
            Request::Lock { service } => self.record(|events| events.record_lock(&service)),
            Request::Attest(_) => Err(ModuleError::Unsupported(format!(
                "platform {} has no documents with fields of the caller's choice; request /v1/evidence",
                self.platform
            ))),
            Request::Registers => Err(ModuleError::Unsupported(format!(
                "platform {} shows its registers in evidence only; request that",
                self.platform
            ))),
            Request::Random => Err(ModuleError::Unsupported(format!(
                "platform {} has no security module that makes random bytes; use getrandom(2), whose generator init has \
                 seeded from the processor",
                self.platform
            ))),
        };
        Ok(answer)
    }

    /// The log for other threads.
    pub(crate) fn log(&self) -> Published {
        self.events().published()
    }

    fn record(&self, record: impl FnOnce(&mut Events) -> Result<Event, Unrecorded>) -> Answer {
        let mut events = self.events();
        record(&mut events)?;
        events.publish();
        Ok(Reply::Recorded { position: events.count().saturating_sub(1), head: events.digests().head() })
    }

    fn events(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use cloister_binding::Bound;
    use cloister_binding::eventlog::Log;

    use super::*;
    use crate::exchange::Fields;

    /// A platform whose reports are the bytes that they must contain, and the host's certificates these.
    fn reports(platform: &str, provider: &'static str, certificates: usize) -> Reports {
        let events = Events::open(tempfile::tempfile().unwrap().into(), 1).unwrap();
        let hardware = move |bytes: &[u8; INBLOB_LENGTH], _: Wanted<'_>| {
            Ok(Report {
                provider: provider.to_owned(),
                outblob: bytes.to_vec(),
                auxblob: vec![7; certificates],
            })
        };
        Reports::new(platform, Box::new(hardware), events)
    }

    fn values() -> Values {
        Values { nonce: vec![1; 32], public_key: vec![2; 91], user_data: vec![3] }
    }

    fn evidence(reports: &mut Reports) -> Result<Evidence, ModuleError> {
        match reports.answer(Request::Evidence(values()), &|| true)? {
            Reply::Evidence(evidence) => Ok(evidence),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_report_contains_the_binding_with_the_log_of_its_moment() {
        let mut reports = reports("snp", "sev_guest", 5);
        let event = || Request::Extend { service: "web".into(), label: "x".into(), data: vec![1] };
        for count in 1..4 {
            let found = evidence(&mut reports).unwrap();
            let log = Log::parse(&found.events.piece(0, usize::MAX)).unwrap();
            assert_eq!(log.events().len(), count);
            let Values { nonce, public_key, user_data } = &values();
            let bound = Bound { nonce, public_key, events: &log.head(), user_data };
            assert_eq!(found.document, bound.report_data().unwrap());
            assert_eq!(found.certificates, [7; 5]);
            let recorded = reports.recorder().answer(event()).unwrap().unwrap();
            assert!(
                matches!(recorded, Reply::Recorded { position, .. } if position == count),
                "{recorded:?}"
            );
        }
    }

    #[test]
    fn nothing_is_recorded_after_the_lock() {
        let recorder = reports("tdx", "tdx_guest", 0).recorder();
        let lock = || Request::Lock { service: "web".into() };
        recorder.answer(lock()).unwrap().unwrap();
        let error = recorder.answer(lock()).unwrap().unwrap_err();
        assert!(matches!(error, ModuleError::Unrecorded(Unrecorded::Locked(_))), "{error:?}");
    }

    #[test]
    fn what_only_a_security_module_has_is_refused_with_the_alternative() {
        let recorder = reports("tdx", "tdx_guest", 0).recorder();
        for (request, alternative) in
            [(Request::Random, "getrandom"), (Request::Attest(Fields::default()), "/v1/evidence")]
        {
            let error = recorder.answer(request).unwrap().unwrap_err();
            assert!(
                matches!(&error, ModuleError::Unsupported(why) if why.contains(alternative)),
                "{error:?}"
            );
        }
    }

    #[test]
    fn a_report_of_other_hardware_or_with_too_long_certificates_is_refused() {
        let error = evidence(&mut reports("tdx", "sev_guest", 0)).unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"the kernel's provider of reports is "sev_guest", not that of platform tdx"#
        );
        evidence(&mut reports("snp", "sev_guest", CERTIFICATES_LIMIT)).unwrap();
        let error = evidence(&mut reports("snp", "sev_guest", CERTIFICATES_LIMIT + 1)).unwrap_err();
        assert_eq!(error.to_string(), "the host's certificates have 16385 bytes, the limit is 16384");
    }
}
