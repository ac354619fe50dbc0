//! Following logs that are rotated, damaged or cut short by a full disk.

use super::*;
use crate::logbook::rotating::{Content, Rotating};
use crate::state::{Home, full_disk};
use cloister_wire::frame::encode_bytes;

fn frame(seq: u64, bytes: &[u8]) -> Vec<u8> {
    let record = Record::Output {
        seq,
        time_ns: 0,
        service: "web".into(),
        stream: Stream::Stdout,
        bytes: bytes.to_vec(),
    };
    encode_bytes(&record.to_bytes().unwrap(), HOST_LIMIT).unwrap()
}

#[test]
fn a_log_is_followed_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let directory = Dir::open(dir.path()).unwrap();
    let mut log = Rotating::create(Home::new(directory.clone()), SERVICES, Content::Records, 64).unwrap();
    log.append(&frame(0, b"first\n")).unwrap();
    let reader = std::thread::spawn(move || {
        let mut out = Vec::new();
        let mut printer = Printer::new(Format::default(), &mut out, io::sink());
        follow(&directory, theirs, &mut printer).unwrap();
        drop(printer);
        out
    });
    for seq in 1..4 {
        log.append(&frame(seq, b"more\n")).unwrap();
    }
    drop(ours);
    assert!(reader.join().unwrap().ends_with(b"more\nmore\n"));
}

fn tail(wanted: usize, pieces: &[&str]) -> String {
    let mut tail = Tail::new(wanted, None);
    for (seq, piece) in (0..).zip(pieces) {
        tail.take(&Record::from_bytes(&frame(seq, piece.as_bytes())[4..]).unwrap()).unwrap();
    }
    let mut out = Vec::new();
    tail.write_to(&mut Printer::new(Format::default(), &mut out, io::sink())).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn the_tail_has_the_last_lines_regardless_of_record_boundaries() {
    assert_eq!(tail(2, &["0\n", "1\n", "2\n", "3\n"]), "2\n3\n");
    assert_eq!(tail(1, &["a\n", "half a ", "line\n"]), "half a line\n");
    assert_eq!(tail(2, &["a\nb\nc\nopen"]), "c\nopen");
    assert_eq!(tail(9, &["a\n", "b"]), "a\nb");
    assert_eq!(tail(0, &["a\n"]), "");
}

#[test]
fn a_damaged_file_is_read_up_to_the_damage() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join(SERVICES),
        [frame(0, b"good\n"), b"\xff\xff\xff\xffnonsense".to_vec()].concat(),
    )
    .unwrap();
    let mut out = Vec::new();
    let mut printer = Printer::new(Format::default(), &mut out, io::sink());
    Records::open(&Dir::open(dir.path()).unwrap(), SERVICES).drain(&mut printer).unwrap();
    drop(printer);
    assert_eq!(out, b"good\n");
}

#[test]
fn a_full_disk_loses_whole_records_and_the_rest_is_followed_and_the_gap_reported() {
    if !full_disk::is_alone(
        module_path!(),
        "a_full_disk_loses_whole_records_and_the_rest_is_followed_and_the_gap_reported",
    ) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let directory = Dir::open(dir.path()).unwrap();
    let mut log =
        Rotating::create(Home::new(directory.clone()), SERVICES, Content::Records, 1 << 20).unwrap();
    let (out, err) = (Shared::default(), Shared::default());
    let mut printer = Printer::new(Format::default(), out.clone(), err.clone());
    let mut records = Records::open(&directory, SERVICES);
    let line = |seq: u64| format!("line {seq}\nhalf of {seq}");
    let batch = |seqs: std::ops::Range<u64>| {
        seqs.flat_map(|seq| frame(seq, line(seq).as_bytes())).collect::<Vec<u8>>()
    };
    log.append(&batch(0..2)).unwrap();
    records.drain(&mut printer).unwrap();
    // The disk becomes full in the middle of record 3, which a reader sees, and later has room for a part of the rest.
    let written = batch(0..2).len();
    for room in [batch(2..3).len() + 7, batch(2..3).len() + 11] {
        full_disk::file_limit(Some(written + room));
        log.append(&batch(2..6)).unwrap_err();
        records.drain(&mut printer).unwrap();
    }
    full_disk::file_limit(None);
    log.append(&batch(6..8)).unwrap();
    records.drain(&mut printer).unwrap();
    assert_eq!(out.text(), (0..4).map(line).collect::<String>() + "\n" + &line(6) + &line(7));
    assert_eq!(err.text(), "cloister: 2 log records are missing here\n");
}

/// A writer whose text can be read meanwhile.
#[derive(Clone, Default)]
struct Shared(std::rc::Rc<std::cell::RefCell<Vec<u8>>>);

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.0.borrow().clone()).unwrap()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_tail_of_one_service_reports_only_the_records_that_are_missing() {
    let record = |seq, service: &str| Record::Output {
        seq,
        time_ns: 0,
        service: service.into(),
        stream: Stream::Stdout,
        bytes: format!("{seq}\n").into_bytes(),
    };
    let mut tail = Tail::new(9, Some("web".into()));
    for record in [record(1, "web"), record(2, "db"), record(3, "web"), record(7, "web"), record(8, "db")] {
        tail.take(&record).unwrap();
    }
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut printer = Printer::new(Format::default(), &mut out, &mut err);
    tail.write_to(&mut printer).unwrap();
    printer.print(&record(9, "web")).unwrap();
    drop(printer);
    assert_eq!(String::from_utf8(out).unwrap(), "1\n3\n7\n9\n");
    assert_eq!(String::from_utf8(err).unwrap(), "cloister: 3 log records are missing here\n");
}

#[test]
fn lost_records_are_a_document_of_their_own() {
    let mut lines = JsonLines::new(Format::default(), Vec::new());
    for seq in [0, 1, 5] {
        lines.take(&Record::from_bytes(&frame(seq, b"x")[4..]).unwrap()).unwrap();
    }
    let text = String::from_utf8(lines.out).unwrap();
    assert_eq!(text.lines().nth(2), Some(r#"{"first_lost":2,"lost":3}"#));
    assert_eq!(text.lines().count(), 4);
}

#[test]
fn output_that_cannot_be_printed_is_reported_unless_its_reader_is_gone() {
    let full = not_shown(&Err(io::ErrorKind::StorageFull.into()), "web").unwrap();
    assert!(full.contains("no longer printed") && full.contains("`host-sleeve logs web`"), "{full}");
    assert_eq!(not_shown(&Err(io::ErrorKind::BrokenPipe.into()), "web"), None);
    assert_eq!(not_shown(&Ok(()), "web"), None);
}
