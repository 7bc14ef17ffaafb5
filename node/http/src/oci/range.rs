//! `Range` and `Content-Range`.

use std::ops::Range;

/// What a `Range` header asks of `size` bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Everything: there is no header, or its unit is unknown.
    All,
    /// One range.
    Part(Range<u64>),
    /// Nothing that can be had: out of bounds, backwards, malformed, or several ranges at once.
    Unsatisfiable,
}

/// Reads a `Range` header. Several ranges are refused rather than answered in parts (no registry client sends them) or
/// with everything (which may be gigabytes that nobody asked for).
pub(super) fn parse_range(header: Option<&str>, size: u64) -> Asked {
    let Some(header) = header else { return Asked::All };
    let Some((unit, spec)) = header.split_once('=') else { return Asked::All };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Asked::All;
    }
    let Some((first, last)) = spec.trim().split_once('-') else { return Asked::Unsatisfiable };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        // A number too large for u64 lies beyond every blob.
        digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    match (number(first.trim()), last.trim()) {
        (Some(start), "") if start < size => Asked::Part(start..size),
        (Some(start), last) => match number(last) {
            Some(end) if start <= end && start < size => {
                Asked::Part(start..end.saturating_add(1).min(size))
            }
            _ => Asked::Unsatisfiable,
        },
        (None, last) if first.trim().is_empty() => match number(last) {
            Some(count) if count > 0 && size > 0 => Asked::Part(size.saturating_sub(count)..size),
            _ => Asked::Unsatisfiable,
        },
        _ => Asked::Unsatisfiable,
    }
}

/// Reads an upload's `Content-Range`: `<first>-<last>`, both included, with or without `bytes ` and a total. Returns the
/// first byte and the length.
pub(super) fn parse_content_range(header: &str) -> Option<(u64, u64)> {
    let text = header.trim();
    let text = text.strip_prefix("bytes").map_or(text, str::trim_start);
    let text = text.split('/').next()?;
    let (first, last) = text.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let length = last.checked_sub(first)?.checked_add(1)?;
    Some((first, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let check = |header: &str, want: Asked| {
            assert_eq!(parse_range(Some(header), 2048), want, "{header}")
        };
        check("bytes=500-1499", Asked::Part(500..1500));
        check("bytes=500-", Asked::Part(500..2048));
        check("bytes=-500", Asked::Part(1548..2048));
        check("bytes=-5000", Asked::Part(0..2048));
        check("bytes=2000-5000", Asked::Part(2000..2048));
        check("bytes=0-18446744073709551615", Asked::Part(0..2048));
        check("bytes=0-99999999999999999999999", Asked::Part(0..2048));
        check("bytes=500-0", Asked::Unsatisfiable);
        check("bytes=5000-10000", Asked::Unsatisfiable);
        check("bytes=2048-", Asked::Unsatisfiable);
        check("bytes=-0", Asked::Unsatisfiable);
        check("bytes=a-b", Asked::Unsatisfiable);
        check("bytes=--5", Asked::Unsatisfiable);
        check("bytes=0-1,5-6", Asked::Unsatisfiable);
        check("items=0-1", Asked::All);
        assert_eq!(parse_range(Some("bytes=0-0"), 0), Asked::Unsatisfiable);
        assert_eq!(parse_range(None, 5), Asked::All);
    }

    #[test]
    fn content_ranges() {
        assert_eq!(parse_content_range("0-1023"), Some((0, 1024)));
        assert_eq!(parse_content_range("bytes 5-5/9"), Some((5, 1)));
        for bad in ["", "5", "5-4", "a-b", "0-18446744073709551615", "-5"] {
            assert_eq!(parse_content_range(bad), None, "{bad}");
        }
    }
}
