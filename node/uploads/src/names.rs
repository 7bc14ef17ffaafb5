//! How a session's id is written in names of files and keys.
//!
//! Guarantees: a name is 32 hexadecimal digits, and each id has one name.

use nora_domain::UploadId;

/// The name of a session.
pub fn name_of(id: UploadId) -> String {
    format!("{:032x}", id.0)
}

/// The session that a name means; `None` for a name that [`name_of`] does not write.
pub fn id_of(name: &str) -> Option<UploadId> {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if name.len() != 32 || !name.bytes().all(is_hex) {
        return None;
    }
    u128::from_str_radix(name, 16).ok().map(UploadId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_are_strict() {
        for id in [0, 0xfe, u128::MAX] {
            assert_eq!(id_of(&name_of(UploadId(id))), Some(UploadId(id)));
        }
        let name = name_of(UploadId(0xfe));
        let upper = name.to_uppercase();
        for bad in ["", "..", &name[1..], &upper, &format!("+{}", &name[1..])] {
            assert_eq!(id_of(bad), None, "{bad}");
        }
    }
}
