//! Dates inside msgpack, and their text in JSON.

/// The range of a JavaScript date, in milliseconds on either side of 1970.
const MILLISECONDS_MAX: u64 = 8_640_000_000_000_000;

const MILLISECONDS_PER_DAY: i64 = 86_400_000;

/// Reads extension 0 of the JavaScript parser: eight bytes, big endian, milliseconds since 1970.
/// The inner `None` is a date out of range; the outer a wrong length.
pub(super) fn from_milliseconds(data: &[u8]) -> Option<Option<i64>> {
    let milliseconds = i64::from_be_bytes(data.try_into().ok()?);
    Some(in_range(milliseconds))
}

/// Reads extension -1, in its forms of 4, 8 and 12 bytes. Spec: MessagePack, "Timestamp extension type".
/// The inner `None` is a date out of range; the outer a wrong form.
pub(super) fn from_timestamp(data: &[u8]) -> Option<Option<i64>> {
    if let Ok(seconds) = data.try_into() {
        return Some(join(u32::from_be_bytes(seconds).into(), 0));
    }
    if let Ok(both) = data.try_into() {
        let both = u64::from_be_bytes(both);
        let seconds = i64::try_from(both & ((1 << 34) - 1)).ok()?;
        return nanoseconds(both >> 34).map(|nanoseconds| join(seconds, nanoseconds));
    }
    let (nanos, seconds) = data.split_first_chunk::<4>()?;
    let seconds = i64::from_be_bytes(seconds.try_into().ok()?);
    nanoseconds(u32::from_be_bytes(*nanos).into()).map(|nanoseconds| join(seconds, nanoseconds))
}

fn nanoseconds(count: u64) -> Option<i64> {
    i64::try_from(count).ok().filter(|count| *count < 1_000_000_000)
}

fn join(seconds: i64, nanoseconds: i64) -> Option<i64> {
    seconds.checked_mul(1000)?.checked_add(nanoseconds / 1_000_000).and_then(in_range)
}

fn in_range(milliseconds: i64) -> Option<i64> {
    (milliseconds.unsigned_abs() <= MILLISECONDS_MAX).then_some(milliseconds)
}

/// Writes a date as JavaScript's `toISOString` does: `1970-01-01T00:00:01.500Z`, with a sign and six digits for
/// years outside 0 to 9999.
pub(super) fn iso_text(milliseconds: i64) -> String {
    let (year, month, day) = civil(milliseconds.div_euclid(MILLISECONDS_PER_DAY));
    let of_day = milliseconds.rem_euclid(MILLISECONDS_PER_DAY);
    let year = match year {
        0..=9999 => format!("{year:04}"),
        _ => format!("{year:+07}"),
    };
    let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (second, fraction) = (of_day / 1000 % 60, of_day % 1000);
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:03}Z")
}

/// The year, month and day of a day counted from 1970-01-01, in the Gregorian calendar extended both ways.
/// Years are counted from March, so that the leap day is the last of its year.
fn civil(day: i64) -> (i64, i64, i64) {
    const DAYS_PER_ERA: i64 = 146_097;
    let since_era_zero = day + 719_468;
    let era = since_era_zero.div_euclid(DAYS_PER_ERA);
    let of_era = since_era_zero.rem_euclid(DAYS_PER_ERA);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_to_iso_string() {
        let check = |milliseconds, expected: &str| assert_eq!(iso_text(milliseconds), expected);
        check(0, "1970-01-01T00:00:00.000Z");
        check(1500, "1970-01-01T00:00:01.500Z");
        check(-1, "1969-12-31T23:59:59.999Z");
        check(951_782_400_000, "2000-02-29T00:00:00.000Z");
        check(4_107_542_400_000, "2100-03-01T00:00:00.000Z");
        check(1_795_323_733_096, "2026-11-22T05:02:13.096Z");
        check(253_402_300_800_000, "+010000-01-01T00:00:00.000Z");
        check(-62_167_219_200_000, "0000-01-01T00:00:00.000Z");
        check(-62_167_219_200_001, "-000001-12-31T23:59:59.999Z");
        check(8_640_000_000_000_000, "+275760-09-13T00:00:00.000Z");
        check(-8_640_000_000_000_000, "-271821-04-20T00:00:00.000Z");
    }

    #[test]
    fn timestamps_have_three_forms() {
        let check = |data: &[u8], expected| assert_eq!(from_timestamp(data), expected, "{data:02x?}");
        check(&[0, 0, 0, 1], Some(Some(1000)));
        // 500,000,000 ns shifted by 34 bits, and one second.
        check(&(500_000_000_u64 << 34 | 1).to_be_bytes(), Some(Some(1500)));
        check(&(1_000_000_000_u64 << 34).to_be_bytes(), None);
        check(&[0x1d, 0xcd, 0x65, 0, 0, 0, 0, 0, 0, 0, 0, 1], Some(Some(1500)));
        check(&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Some(Some(-1000)));
        check(&[0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Some(None));
        check(&[], None);
        check(&[0; 5], None);
        check(&[0; 13], None);
    }

    #[test]
    fn dates_out_of_range_are_none() {
        assert_eq!(from_milliseconds(&i64::MIN.to_be_bytes()), Some(None));
        assert_eq!(from_milliseconds(&8_640_000_000_000_001_i64.to_be_bytes()), Some(None));
        assert_eq!(from_milliseconds(&[0; 7]), None);
    }
}
