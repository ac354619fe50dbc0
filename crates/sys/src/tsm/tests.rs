//! Requests against a simulated entry, which counts writes as `drivers/virt/coco/tsm.c` does, and on ordinary directories.

use std::cell::{Cell, RefCell};

use super::*;

const INPUT: [u8; INBLOB_LENGTH] = [7; INBLOB_LENGTH];

/// An entry. Its report is the input, repeated, with the privilege level in front.
struct Simulated {
    provider: &'static str,
    has_level: bool,
    aux: Option<Vec<u8>>,
    /// The driver's error for the report, if any.
    error: Option<Errno>,
    /// Whether the driver refuses the written input, which configfs does not report.
    loses_input: bool,
    /// Whether another program writes while the report is read.
    disturbed: bool,
    repeat: usize,
    generation: Cell<u64>,
    input: RefCell<Vec<u8>>,
    level: Cell<u8>,
}

fn entry() -> Simulated {
    Simulated {
        provider: "sev_guest\n",
        has_level: true,
        aux: Some(b"table".to_vec()),
        error: None,
        loses_input: false,
        disturbed: false,
        repeat: 2,
        // Not zero: an entry may have been written before.
        generation: Cell::new(u64::MAX),
        input: RefCell::default(),
        level: Cell::new(b'-'),
    }
}

impl Attributes for Simulated {
    fn write(&self, name: &'static str, bytes: &[u8]) -> io::Result<()> {
        match name {
            PRIVLEVEL if !self.has_level => return Err(Errno::NOENT.into()),
            PRIVLEVEL if bytes.len() != 1 => return Err(Errno::INVAL.into()),
            PRIVLEVEL => self.level.set(bytes[0]),
            INBLOB if self.loses_input => return Ok(()),
            INBLOB => *self.input.borrow_mut() = bytes.to_vec(),
            _ => return Err(Errno::ACCESS.into()),
        }
        self.generation.set(self.generation.get().wrapping_add(1));
        Ok(())
    }

    fn read(&self, name: &'static str, limit: usize) -> io::Result<Vec<u8>> {
        let mut bytes = match name {
            PROVIDER => self.provider.as_bytes().to_vec(),
            GENERATION => format!("{}\n", self.generation.get()).into_bytes(),
            OUTBLOB => {
                if let Some(error) = self.error {
                    return Err(error.into());
                }
                if self.disturbed {
                    self.generation.set(self.generation.get().wrapping_add(1));
                }
                [vec![self.level.get()], self.input.borrow().repeat(self.repeat)].concat()
            }
            AUXBLOB => self.aux.clone().ok_or(Errno::NOENT)?,
            _ => return Err(Errno::ACCESS.into()),
        };
        bytes.truncate(limit);
        Ok(bytes)
    }
}

/// An entry whose report is empty.
struct Empty(Simulated);

impl Attributes for Empty {
    fn write(&self, name: &'static str, bytes: &[u8]) -> io::Result<()> {
        self.0.write(name, bytes)
    }

    fn read(&self, name: &'static str, limit: usize) -> io::Result<Vec<u8>> {
        if name == OUTBLOB { Ok(Vec::new()) } else { self.0.read(name, limit) }
    }
}

#[test]
fn a_report_has_the_input_and_the_privilege_level() {
    let report = request(&entry(), &INPUT, Some(1)).unwrap();
    assert_eq!(report.provider, "sev_guest");
    assert_eq!(report.outblob, [b"1".as_slice(), &INPUT, &INPUT].concat());
    assert_eq!(report.auxblob, b"table");
    assert_eq!(request(&entry(), &INPUT, None).unwrap().outblob[0], b'-', "the provider's default");
}

#[test]
fn a_provider_without_optional_attributes_has_reports_too() {
    let tdx = || Simulated { provider: "tdx_guest\n", has_level: false, aux: None, ..entry() };
    assert_eq!(request(&tdx(), &INPUT, None).unwrap().auxblob, b"");
    assert!(matches!(request(&tdx(), &INPUT, Some(0)), Err(TsmError::Unsupported(PRIVLEVEL))));
    assert!(matches!(request(&entry(), &INPUT, Some(10)), Err(TsmError::Refused(PRIVLEVEL))));
}

#[test]
fn an_input_that_the_driver_did_not_take_is_noticed() {
    // The report of an earlier input must not be returned for this one.
    let lost = Simulated { loses_input: true, input: RefCell::new(vec![1; 64]), ..entry() };
    assert!(matches!(request(&lost, &INPUT, None), Err(TsmError::Changed)));
}

#[test]
fn a_change_by_another_program_is_noticed() {
    assert!(matches!(
        request(&Simulated { disturbed: true, ..entry() }, &INPUT, None),
        Err(TsmError::Changed)
    ));
}

#[test]
fn a_request_that_another_program_changed_is_repeated_with_the_same_entry() {
    for (disturbances, expected) in [(0, true), (ATTEMPTS - 1, true), (ATTEMPTS, false)] {
        let (mut entry, mut requests) = (entry(), 0);
        let attempt = || {
            requests += 1;
            entry.disturbed = requests <= disturbances;
            request(&entry, &INPUT, None)
        };
        let report = unless_changed(|| true, attempt);
        assert_eq!(report.is_ok(), expected, "{disturbances}: {report:?}");
        assert_eq!(requests, ATTEMPTS.min(disturbances + 1));
    }
}

#[test]
fn a_request_that_nobody_waits_for_is_not_repeated() {
    let mut requests = 0;
    let attempt = || {
        requests += 1;
        Err(TsmError::Changed)
    };
    assert!(matches!(unless_changed(|| false, attempt), Err(TsmError::Changed)));
    assert_eq!(requests, 1);
}

#[test]
fn reports_are_bounded_and_not_empty() {
    let of = |repeat| request(&Simulated { repeat, ..entry() }, &INPUT, None);
    assert_eq!(of(511).unwrap().outblob.len(), BLOB_LIMIT - 63);
    assert!(matches!(of(512), Err(TsmError::Oversized(OUTBLOB, BLOB_LIMIT))));
    let large = Simulated { aux: Some(vec![0; BLOB_LIMIT + 1]), ..entry() };
    assert!(matches!(request(&large, &INPUT, None), Err(TsmError::Oversized(AUXBLOB, BLOB_LIMIT))));
    assert!(matches!(request(&Empty(entry()), &INPUT, None), Err(TsmError::Malformed(OUTBLOB))));
}

#[test]
fn texts_with_anything_but_printable_characters_are_refused() {
    for provider in ["", "\n", "a b\n", "\u{1b}[31m\n", "tdx\n\n", "ä\n"] {
        let result = request(&Simulated { provider, ..entry() }, &INPUT, None);
        assert!(matches!(result, Err(TsmError::Malformed(PROVIDER))), "{provider:?}: {result:?}");
    }
    let long = Simulated {
        provider: "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        ..entry()
    };
    assert!(matches!(request(&long, &INPUT, None), Err(TsmError::Oversized(PROVIDER, TEXT_LIMIT))));
}

#[test]
fn each_error_of_the_driver_has_a_type() {
    let of = |error| request(&Simulated { error: Some(error), ..entry() }, &INPUT, None).unwrap_err();
    assert!(matches!(of(Errno::INVAL), TsmError::Refused(OUTBLOB)));
    assert!(matches!(of(Errno::BUSY), TsmError::Busy));
    assert!(matches!(of(Errno::WOULDBLOCK), TsmError::WouldBlock));
    assert!(matches!(of(Errno::TIMEDOUT), TsmError::TimedOut));
    assert!(matches!(of(Errno::NOTTY), TsmError::Disabled));
    assert!(matches!(of(Errno::FBIG), TsmError::Oversized(OUTBLOB, BLOB_LIMIT)));
    assert!(matches!(of(Errno::NXIO), TsmError::Absent(_)));
    assert!(matches!(of(Errno::NOENT), TsmError::Changed), "the entry was removed");
    assert!(matches!(of(Errno::IO), TsmError::Io { what: OUTBLOB, .. }));
}

#[test]
fn a_kernel_without_reports_is_absent() {
    let root = tempfile::tempdir().unwrap();
    let error = report(&root.path().join("tsm/report"), &INPUT, None).unwrap_err();
    assert!(matches!(error, TsmError::Absent(_)), "{error:?}");
    assert_eq!(error.to_string(), "the kernel has no provider of reports");
}

#[test]
fn entries_are_removed_on_every_exit() {
    // An ordinary directory gets no attributes, as if another program removed each entry.
    let root = tempfile::tempdir().unwrap();
    assert!(matches!(report(root.path(), &INPUT, None), Err(TsmError::Changed)));
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn entries_have_names_of_their_own() {
    let root = tempfile::tempdir().unwrap();
    let entries: Vec<Entry> = (0..3).map(|_| Entry::create(root.path()).unwrap()).collect();
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), entries.len());
    // The next name is taken, by an earlier process of this number.
    let next = NEXT.load(Ordering::Relaxed);
    for number in next..next + 5 {
        drop(fs::create_dir(root.path().join(format!("cloister-{}-{number}", std::process::id()))));
    }
    assert!(Entry::create(root.path()).is_ok());
}

#[test]
fn an_attribute_is_written_and_read_as_a_file() {
    let root = tempfile::tempdir().unwrap();
    let entry = Entry::create(root.path()).unwrap();
    fs::write(entry.0.join(INBLOB), "").unwrap();
    entry.write(INBLOB, &INPUT).unwrap();
    assert_eq!(entry.read(INBLOB, 100).unwrap(), INPUT);
    assert_eq!(entry.read(INBLOB, 10).unwrap().len(), 10);
    assert!(entry.write("new", b"x").is_err(), "no attribute is created");
    fs::remove_file(entry.0.join(INBLOB)).unwrap();
}

#[test]
fn a_quote_that_does_not_fit_the_drivers_buffer_is_refused() {
    // The simulated report is one byte and the input of 64 bytes, repeated.
    let of = |provider, repeat| {
        request(&Simulated { provider, repeat, ..entry() }, &INPUT, None).map(|report| report.outblob.len())
    };
    assert_eq!(of("tdx_guest\n", 127).unwrap(), 8129);
    let error = of("tdx_guest\n", 128).unwrap_err();
    assert_eq!(error.to_string(), "outblob is longer than the limit of 8168 bytes");
    assert_eq!(of("sev_guest\n", 128).unwrap(), 8193);
}

#[test]
fn a_tdx_host_that_did_not_answer_for_the_drivers_limit_timed_out() {
    let failed = || TsmError::Io { what: OUTBLOB, source: Errno::IO.into() };
    let other = || TsmError::Io { what: OUTBLOB, source: Errno::NOMEM.into() };
    let before = Duration::from_millis(29_999);
    for error in [failed(), TsmError::Malformed(OUTBLOB)] {
        assert!(matches!(of_tdx(error, TDX_PATIENCE), TsmError::TimedOut));
    }
    assert!(matches!(of_tdx(failed(), before), TsmError::Io { .. }));
    assert!(matches!(of_tdx(TsmError::Malformed(OUTBLOB), before), TsmError::Malformed(_)));
    assert!(matches!(of_tdx(other(), TDX_PATIENCE), TsmError::Io { .. }));
    assert!(matches!(of_tdx(TsmError::Busy, TDX_PATIENCE), TsmError::Busy));
}
