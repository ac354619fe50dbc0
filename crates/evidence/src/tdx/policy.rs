//! What a relying party requires of a TD, and the checks of its report against it.
//!
//! Invariant: what the policy does not list is refused. An empty list of measurements accepts no quote; a TD under debug is always
//! refused.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::quote::{Attributes, TdReport};
use super::status::TcbStatus;
use crate::bytes::Text;
use crate::hex::{self, expect};

/// The measurements of one accepted TD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measurements {
    /// The measurement of the initial content.
    pub mr_td: [u8; 48],
    /// The runtime registers. `None` accepts any value: of register 3 if the caller replays an event log into it.
    pub rtmr: [Option<[u8; 48]>; 4],
}

/// Requirements on a quote whose signatures hold.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The report data that is expected: it binds the quote to a request.
    pub report_data: [u8; 64],
    /// Accepted measurements.
    pub measurements: Vec<Measurements>,
    /// Accepted statuses of the platform. Default: `UpToDate` only.
    pub statuses: Vec<TcbStatus>,
    /// Advisories that are refused even if the status is accepted, such as `INTEL-SA-00615`.
    pub refused_advisories: Vec<String>,
    /// The lowest accepted number of Intel's evaluation (`tcbEvaluationDataNumber`), to refuse old collateral that has not expired.
    pub minimum_evaluation: Option<u32>,
    /// Bits of [`Attributes`] that must be clear, besides those that are always refused.
    pub attributes_clear: u64,
    /// The identifier of the configuration that is expected.
    pub mr_config_id: Option<[u8; 48]>,
    /// The identifier of the owner that is expected.
    pub mr_owner: Option<[u8; 48]>,
    /// The identifier of the owner's configuration that is expected.
    pub mr_owner_config: Option<[u8; 48]>,
}

impl Policy {
    /// A policy with the usual requirement: the platform is up to date.
    #[must_use]
    pub fn new(report_data: [u8; 64], measurements: Vec<Measurements>) -> Self {
        Self {
            report_data,
            measurements,
            statuses: Vec::from([TcbStatus::UpToDate]),
            refused_advisories: Vec::new(),
            minimum_evaluation: None,
            attributes_clear: 0,
            mr_config_id: None,
            mr_owner: None,
            mr_owner_config: None,
        }
    }

    pub(crate) fn check_debug(report: &TdReport) -> Result<(), Text> {
        let Attributes(bits) = report.attributes;
        if bits & Attributes::UNTRUSTED != 0 {
            return Err(format!(
                "attributes {bits:#x}: the TD is under debug, the host can read and change it"
            )
            .into());
        }
        Ok(())
    }

    pub(crate) fn check_attributes(&self, report: &TdReport) -> Result<(), Text> {
        let Attributes(bits) = report.attributes;
        if !report.attributes.has(Attributes::SEPT_VE_DISABLE) {
            return Err(format!("attributes {bits:#x}: SEPT_VE_DISABLE must be set").into());
        }
        let excess = bits & (self.attributes_clear | Attributes::MIGRATABLE);
        if excess != 0 {
            return Err(format!("attributes {bits:#x}: {} must be clear", Attributes::names(excess)).into());
        }
        Ok(())
    }

    /// The platform's status contains less than it seems: not that the current versions are older than those at launch, and of the
    /// quoting enclave only that it is out of date.
    pub(crate) fn check_status(
        &self,
        status: TcbStatus,
        current: Option<TcbStatus>,
        enclave: TcbStatus,
    ) -> Result<(), Text> {
        let accepted: Vec<&str> = self.statuses.iter().map(|status| status.name()).collect();
        let accepted = accepted.join(", ");
        if !self.statuses.contains(&status) {
            return Err(format!("{status}, accepted: {accepted}").into());
        }
        let is_refused =
            |status: &TcbStatus| *status != TcbStatus::UpToDate && !self.statuses.contains(status);
        if let Some(current) = current.filter(is_refused) {
            return Err(format!("{current} when the quote was made, accepted: {accepted}").into());
        }
        if enclave != TcbStatus::OutOfDate && is_refused(&enclave) {
            return Err(format!("the quoting enclave is {enclave}, accepted: {accepted}").into());
        }
        Ok(())
    }

    pub(crate) fn check_advisories(&self, advisories: &[String]) -> Result<Text, Text> {
        let refused = advisories
            .iter()
            .find(|found| self.refused_advisories.iter().any(|id| id.eq_ignore_ascii_case(found)));
        match refused {
            Some(refused) => Err(format!("{refused} is refused by the policy").into()),
            None if advisories.is_empty() => Ok("none".into()),
            None => Ok(advisories.join(", ").into()),
        }
    }

    /// `None`: the policy does not say.
    pub(crate) fn check_evaluation(&self, number: u32) -> Option<Result<(), Text>> {
        let minimum = self.minimum_evaluation?;
        Some(if number >= minimum {
            Ok(())
        } else {
            Err(format!("{number}, at least {minimum} is required").into())
        })
    }

    pub(crate) fn check_mr_td(&self, report: &TdReport) -> Result<(), Text> {
        if self.measurements.iter().any(|accepted| accepted.mr_td == report.mr_td) {
            return Ok(());
        }
        Err(format!(
            "{} is not one of the {} accepted measurements",
            hex::text(&report.mr_td),
            self.measurements.len()
        )
        .into())
    }

    /// The runtime registers are those of an accepted TD with the same measurement. Describes which were compared.
    pub(crate) fn check_rtmr(&self, report: &TdReport) -> Result<Text, Text> {
        let candidates = self.measurements.iter().filter(|accepted| accepted.mr_td == report.mr_td);
        let mut first = None;
        for accepted in candidates {
            match difference(&accepted.rtmr, &report.rtmr) {
                None => return Ok(compared(&accepted.rtmr)),
                Some(text) => first = first.or(Some(text)),
            }
        }
        Err(first.unwrap_or_else(|| "no accepted TD has this MRTD".into()))
    }

    pub(crate) fn check_report_data(&self, report: &TdReport) -> Result<(), Text> {
        expect(&report.report_data, &self.report_data)
    }

    pub(crate) fn check_config_id(&self, report: &TdReport) -> Option<Result<(), Text>> {
        self.mr_config_id.as_ref().map(|expected| expect(&report.mr_config_id, expected))
    }

    pub(crate) fn check_owner(&self, report: &TdReport) -> Option<Result<(), Text>> {
        self.mr_owner.as_ref().map(|expected| expect(&report.mr_owner, expected))
    }

    pub(crate) fn check_owner_config(&self, report: &TdReport) -> Option<Result<(), Text>> {
        self.mr_owner_config.as_ref().map(|expected| expect(&report.mr_owner_config, expected))
    }
}

/// The first register that differs from an accepted value.
fn difference(accepted: &[Option<[u8; 48]>; 4], found: &[[u8; 48]; 4]) -> Option<Text> {
    let mut registers = accepted.iter().zip(found).enumerate();
    registers.find_map(|(index, (accepted, found))| match accepted {
        Some(accepted) if accepted != found => {
            Some(format!("RTMR{index}: expected {}, found {}", hex::text(accepted), hex::text(found)).into())
        }
        _ => None,
    })
}

fn compared(accepted: &[Option<[u8; 48]>; 4]) -> Text {
    let (given, open): (Vec<_>, Vec<_>) = (0..).zip(accepted).partition(|(_, value)| value.is_some());
    let list = |registers: Vec<(u32, _)>| {
        let names: Vec<String> =
            registers.iter().map(|(index, _): &(u32, _)| format!("RTMR{index}")).collect();
        if names.is_empty() { String::from("none") } else { names.join(", ") }
    };
    format!("compared: {}; not in the policy: {}", list(given), list(open)).into()
}
