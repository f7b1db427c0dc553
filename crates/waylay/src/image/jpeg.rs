//! Whether a JPEG file is all there. Source: ITU-T T.81, annex B.

const TEMPORARY: u8 = 0x01;
const RESTART_0: u8 = 0xd0;
const RESTART_7: u8 = 0xd7;
const START_OF_IMAGE: u8 = 0xd8;
const END_OF_IMAGE: u8 = 0xd9;

/// Whether the end-of-image marker is reached from segment to segment; one inside an embedded
/// thumbnail does not count.
pub(super) fn has_end(file: &[u8]) -> bool {
    let mut rest = file;
    while let Some(marker) = next_marker(&mut rest) {
        match marker {
            END_OF_IMAGE => return true,
            TEMPORARY | RESTART_0..=RESTART_7 | START_OF_IMAGE => {}
            _ => {
                let &[high, low, ..] = rest else { return false };
                let Some(after) = rest.get(usize::from(u16::from_be_bytes([high, low]))..) else {
                    return false;
                };
                rest = after;
            }
        }
    }
    false
}

/// The next marker; what lies before it, such as the data of a scan, is passed over.
fn next_marker(rest: &mut &[u8]) -> Option<u8> {
    loop {
        let at = rest.iter().position(|&byte| byte == 0xff)?;
        let code = *rest.get(at + 1)?;
        // 0xff 0x00 is a byte of data, 0xff 0xff is padding.
        *rest = rest.get(at + if code == 0xff { 1 } else { 2 }..)?;
        if code != 0x00 && code != 0xff {
            return Some(code);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_thumbnail_is_not_the_end() {
        let header = [0xff, 0xd8, 0xff, 0xe1, 0, 6, 0xff, 0xd8, 0xff, 0xd9, 0xff, 0xda, 0, 2];
        let scan = [1, 2, 0xff, 0, 3, 0xff, 0xd0, 4];
        let whole = [&header[..], &scan, &[0xff, 0xff, 0xd9, 9, 9]].concat();
        assert!(has_end(&whole));
        assert!((0..header.len() + scan.len() + 3).all(|length| !has_end(&whole[..length])));
    }
}
