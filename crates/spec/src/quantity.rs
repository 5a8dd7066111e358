//! Kubernetes quantities (`96Gi`, `1500M`, `2e9`) to bytes and back. It must know no field names.

/// Bytes of a Kubernetes quantity, rounded up as Kubernetes rounds; `None` when the text is not a quantity,
/// is negative, or exceeds `u64`.
///
/// Grammar: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>.
pub fn parse_quantity(text: &str) -> Option<u64> {
    let digits_end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || number.len() > 30 {
        return None;
    }
    let (multiplier, divisor) = scale(suffix)?;
    // value = (whole ++ fraction) / 10^fraction.len(); at most 30 digits, so it fits u128 with room to check.
    let mantissa: u128 = format!("{whole}{fraction}").parse().ok()?;
    let places = u32::try_from(fraction.len()).ok()?;
    let divisor = divisor.checked_mul(10u128.checked_pow(places)?)?;
    u64::try_from(mantissa.checked_mul(multiplier)?.div_ceil(divisor)).ok()
}

/// (multiplier, divisor) of a suffix or a decimal exponent.
fn scale(suffix: &str) -> Option<(u128, u128)> {
    let decimal = |power: u32| Some((10u128.pow(power), 1));
    let binary = |power: u32| Some((1u128 << (10 * power), 1));
    match suffix {
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1_000)),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        other => {
            let exponent: i32 = other.strip_prefix(['e', 'E'])?.parse().ok()?;
            match exponent {
                0..=18 => decimal(exponent.unsigned_abs()),
                -18..0 => Some((1, 10u128.pow(exponent.unsigned_abs()))),
                _ => None,
            }
        }
    }
}

/// Bytes for people: decimal gigabytes as the model publishers count them, one decimal above 10.
pub fn format_bytes(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (1_000_000_000_000, "TB"),
        (1_000_000_000, "GB"),
        (1_000_000, "MB"),
        (1_000, "kB"),
    ];
    for (size, unit) in UNITS {
        if bytes >= size {
            let tenths = (u128::from(bytes) * 10).div_ceil(u128::from(size));
            return if tenths % 10 == 0 {
                format!("{} {unit}", tenths / 10)
            } else {
                format!("{}.{} {unit}", tenths / 10, tenths % 10)
            };
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn quantities_of_every_kind() {
        let cases: &[(&str, Option<u64>)] = &[
            ("0", Some(0)),
            ("1", Some(1)),
            ("96Gi", Some(96 << 30)),
            ("1.5Gi", Some(3 << 29)),
            ("1500M", Some(1_500_000_000)),
            ("2e9", Some(2_000_000_000)),
            ("2E9", Some(2_000_000_000)),
            ("2E", Some(2_000_000_000_000_000_000)),
            ("15Ei", Some(15 << 60)),
            ("16Ei", None),
            ("131900496Ki", Some(131_900_496 << 10)),
            ("128849018880m", Some(128_849_019)),
            ("1n", Some(1)),
            (".5k", Some(500)),
            ("5.", Some(5)),
            ("", None),
            (".", None),
            ("-1Gi", None),
            ("+1Gi", None),
            ("1 Gi", None),
            ("1gi", None),
            ("Gi", None),
            ("1.2.3", None),
            ("1e99", None),
            ("99999999999999999999999999999999", None),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_quantity(text), *bytes, "{text}");
        }
    }

    #[test]
    fn bytes_for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (381_000_000_000, "381 GB"),
            (8_100_000_000, "8.1 GB"),
            (1_200_000_000_000, "1.2 TB"),
        ] {
            assert_eq!(format_bytes(bytes), text);
        }
    }
}
