//! Computes figures from samples.

use std::fmt::Write;

/// The median of the samples; NaN if there are none.
#[must_use]
pub fn median(samples: &[f64]) -> f64 {
    quantile(samples, 50)
}

/// The sample below which `percent` of them are; NaN if there are none.
#[must_use]
pub fn quantile(samples: &[f64], percent: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = sorted.len().saturating_mul(percent) / 100;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// A Markdown table.
#[must_use]
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
    for row in rows {
        // Writing to a String cannot fail.
        writeln!(text, "| {} |", row.join(" | ")).unwrap_or_default();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_not_affected_by_one_outlier() {
        assert!((median(&[3.0, 1.0, 1000.0, 2.0, 2.5]) - 2.5).abs() < f64::EPSILON);
        assert!((quantile(&[1.0, 2.0, 3.0, 4.0], 99) - 4.0).abs() < f64::EPSILON);
        assert!(median(&[]).is_nan());
    }
}
