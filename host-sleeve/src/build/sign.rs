//! The key and the certificate for signing for AWS Nitro.
//!
//! Invariant: a certificate that the hardware would refuse at boot is refused before anything is built.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cloister_image::eif::{SignError, Signer, Validity};

use crate::error::{Error, Result};
use crate::output;
use crate::values::show_duration;

/// Maximum length of a key or certificate file in bytes: a chain of several certificates has ten thousand.
const MAX_PEM: u64 = 1024 * 1024;

/// The command that creates a key and a self-signed certificate.
const OPENSSL: &str = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-384 -nodes -keyout key.pem -out \
                       certificate.pem -subj /CN=me -days 365";

/// A certificate that expires within this time causes a warning: an image is used for longer than its build takes, and a
/// renewal takes days at most organizations.
const SOON: Duration = Duration::from_hours(30 * 24);

/// Reads the key and the certificate.
pub(super) fn signer(key: &Path, certificate: &Path) -> Result<Signer> {
    let signer = Signer::from_pem(&read(key)?, &read(certificate)?).map_err(|error| {
        let hint = match error {
            SignError::Key => "decrypt an encrypted key with `openssl pkcs8`, or create a new pair: ",
            SignError::Certificate(_) | SignError::Mismatch => {
                "use the certificate that was issued for the key, or create a new pair: "
            }
        };
        Error::operator("the enclave image cannot be signed").because(error).hint(format!("{hint}{OPENSSL}"))
    })?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    if let Some(warning) = check(certificate, signer.certificate().validity(), now)? {
        output::note(&warning);
    }
    Ok(signer)
}

/// Refuses a certificate that is not valid now; returns a warning about one that expires soon.
fn check(certificate: &Path, validity: Validity, now: Duration) -> Result<Option<String>> {
    let name = certificate.display();
    let refused = |why: &str, hint: String| {
        let what = format!("the signing certificate {name} {why}: it is valid {validity}");
        Err(Error::operator(what)
            .because(std::io::Error::other("AWS Nitro hardware does not boot an image signed with it"))
            .hint(hint))
    };
    let (from, to) = (Duration::from_secs(validity.not_before), Duration::from_secs(validity.not_after));
    if now < from {
        return refused(
            "is not valid yet",
            "check this host's clock, or sign with another certificate".into(),
        );
    }
    let Some(left) = to.checked_sub(now) else {
        return refused("has expired", format!("renew it, or create a new pair: {OPENSSL}"));
    };
    Ok((left < SOON).then(|| {
        format!(
            "warning: the signing certificate {name} expires in {}: after that AWS Nitro hardware does not boot the image",
            show_duration(left)
        )
    }))
}

fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    let read = fs::File::open(path).and_then(|file| file.take(MAX_PEM).read_to_string(&mut text));
    read.map_err(|error| {
        Error::operator(format!("{} cannot be read", path.display()))
            .because(error)
            .hint("--sign-key and --sign-certificate take files in PEM form")
    })?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_key_is_refused_with_the_command_that_creates_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        let error = signer(&path, &path).unwrap_err();
        assert!(error.to_string().contains("key.pem"));
        fs::write(&path, "no key").unwrap();
        let error = signer(&path, &path).unwrap_err();
        assert!(error.reasons().concat().contains("P-384"));
        assert!(error.details().hint.as_deref().unwrap().contains("openssl req"));
    }

    #[test]
    fn a_certificate_that_is_not_valid_now_is_refused_and_one_that_expires_soon_causes_a_warning() {
        const DAY: u64 = 24 * 60 * 60;
        let validity = Validity { not_before: 100 * DAY, not_after: 465 * DAY };
        let at = |seconds| check(Path::new("c.pem"), validity, Duration::from_secs(seconds));
        let early = at(100 * DAY - 1).unwrap_err();
        assert!(early.to_string().contains("c.pem is not valid yet: it is valid from 1970-04-11"), "{early}");
        let late = at(465 * DAY + 1).unwrap_err();
        assert!(late.to_string().contains("has expired"), "{late}");
        assert!(late.details().hint.as_deref().unwrap().contains("openssl req"));
        assert_eq!(at(100 * DAY).unwrap(), None);
        assert_eq!(at(435 * DAY).unwrap(), None);
        assert!(at(435 * DAY + 1).unwrap().unwrap().contains("expires in 29 d 23 h"));
        assert!(at(465 * DAY).unwrap().is_some());
    }
}
