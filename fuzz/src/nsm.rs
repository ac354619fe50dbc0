//! Answers of a Nitro Security Module, and requests to the development module.

use std::cell::RefCell;

use cloister_nsm::server::{Refusal, Request, Response};
use cloister_nsm::{Claims, Module, NsmError};

/// One answer, sent to each request. Decoded values are within their bounds, at most one request accepts the answer, and no
/// terminal control characters are returned.
pub fn answer(data: &[u8]) {
    let module = Module::over(|_| Ok(data.to_vec()));
    let mut read = 0;
    if let Ok(pcr) = checked(module.pcr(0)) {
        assert!([32, 48, 64].contains(&pcr.value.len()));
        read += 1;
    }
    if let Ok(value) = checked(module.extend(0, b"data")) {
        assert!([32, 48, 64].contains(&value.len()));
        read += 1;
    }
    if let Ok(random) = checked(module.random()) {
        assert!((1..=256).contains(&random.len()));
        read += 1;
    }
    if let Ok(document) = checked(module.attest(Claims::default())) {
        assert!(document.len() < data.len());
        read += 1;
    }
    if let Ok(description) = checked(module.describe()) {
        assert!(description.locked_pcrs.len() <= 256);
        assert!(printable(&description.module_id) && description.digest.starts_with("SHA"));
        read += 1;
    }
    read += usize::from(checked(module.lock(0)).is_ok()) + usize::from(checked(module.lock_below(1)).is_ok());
    assert!(read <= 1, "one answer was accepted by {read} requests");
}

/// One request of an enclave, as the development module reads it. What was read is within the limits, means the same to the client
/// that writes it again, and is accepted in its one form.
pub fn request(data: &[u8]) {
    let Ok(request) = Request::read(data) else { return };
    let sent = RefCell::new(Vec::new());
    let module = Module::over(|bytes| {
        *sent.borrow_mut() = bytes.to_vec();
        Ok(Response::Refused(Refusal::InternalError).encode())
    });
    let refused = match request {
        Request::Describe => module.describe().map(drop),
        Request::Random => module.random().map(drop),
        Request::Pcr { index } => module.pcr(index).map(drop),
        Request::Extend { index, data: extension } => {
            assert!(extension.len() < data.len());
            module.extend(index, extension).map(drop)
        }
        Request::Lock { index } => module.lock(index),
        Request::LockBelow { range } => module.lock_below(range),
        Request::Attest(claims) => module.attest(claims).map(drop),
    };
    assert!(matches!(refused, Err(NsmError::Refused(reason)) if reason == "InternalError"));
    assert_eq!(Request::read(&sent.borrow()), Ok(request));
}

fn checked<T>(answer: Result<T, NsmError>) -> Result<T, NsmError> {
    if let Err(error) = &answer {
        assert!(error.to_string().chars().all(|letter| !letter.is_control()), "{error:?}");
        assert!(!matches!(error, NsmError::Device(_) | NsmError::Request(_)), "{error:?}");
    }
    answer
}

fn printable(text: &str) -> bool {
    text.len() <= 256 && text.bytes().all(|byte| byte.is_ascii_graphic())
}
