//! Whether the manifest allows the platform that init has detected.
//!
//! Invariant: on any other platform nothing of the application runs. A host can start an image on other hardware than its author
//! intended, and a check on the host cannot prevent that.

use cloister_manifest::Platform;

/// Checks that the platform `found` is among those that the manifest allows. The error is the text of the fatal state.
pub(super) fn check(allowed: &[Platform], found: &str) -> Result<(), String> {
    if allowed.iter().any(|platform| platform.name() == found) {
        return Ok(());
    }
    let allowed = Platform::list(allowed);
    Err(format!(
        "this machine's platform is {found}, and the image's manifest allows only {allowed}; run the image there, or add \
         {found} to `platforms` in the manifest and build it again"
    ))
}

#[cfg(test)]
mod tests {
    use cloister_sys::platform::Platform as Detected;

    use super::*;

    #[test]
    fn only_a_listed_platform_is_accepted() {
        let two = [Platform::Nitro, Platform::Snp];
        assert_eq!(check(&two, "snp"), Ok(()));
        for (allowed, found) in [(two.as_slice(), "tdx"), (&two, "Nitro"), (&two, ""), (&[], "virtual")] {
            let error = check(allowed, found).unwrap_err();
            assert!(error.contains(&Platform::list(allowed)), "{error}");
        }
    }

    #[test]
    fn a_manifest_uses_the_names_that_init_reports() {
        let detected = [Detected::Nitro, Detected::Tdx, Detected::Snp, Detected::Virtual];
        assert_eq!(Platform::ALL.map(Platform::name), detected.map(Detected::name));
    }
}
