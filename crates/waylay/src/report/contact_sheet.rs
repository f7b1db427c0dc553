//! The examples as one PNG: query, adversarial query, perturbation, five results before, five
//! after; a row each.

use std::convert::Infallible;
use std::io::Cursor;

use embedded_graphics::Drawable;
use embedded_graphics::Pixel;
use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::ascii::FONT_8X13_BOLD;
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::text::{Baseline, Text};
use image::imageops::{self, FilterType};
use image::{ImageFormat, Rgb, RgbImage};

use super::ReportError;
use crate::audit::outcome::Example;

/// Pictures of at most this size are enlarged by a whole factor to at most [`ENLARGED`].
const TINY: u32 = 64;
/// What tiny pictures are enlarged to at most.
const ENLARGED: u32 = 96;
/// Pictures above this size are shrunk to it.
const LARGEST: u32 = 128;
const BORDER: u32 = 3;
const DASH: u32 = 13;
const DASH_INK: u32 = 8;
const GAP: u32 = 8;
const GROUP_GAP: u32 = 28;
const MARGIN: u32 = 20;
const SHOWN_HITS: usize = 5;
/// Fewest pixels across a column: room for its name.
const NARROWEST: u32 = 72;
/// Height of the line of words above the pictures.
const HEADER: u32 = 24;
const INK: Rgb888 = Rgb888::new(40, 40, 44);
const PAPER: Rgb<u8> = Rgb([250, 249, 247]);
const RIGHT: Rgb<u8> = Rgb([26, 127, 75]);
const WRONG: Rgb<u8> = Rgb([192, 57, 43]);

/// A PNG with a line of words, and one row per example: query | adversarial | change || top five
/// before || top five after. True matches have a solid green border, others a dashed red one.
/// Pictures up to 64 pixels are enlarged by a whole factor, pictures above 128 shrunk. A missing
/// picture leaves its place empty; no examples, an empty sheet.
pub fn contact_sheet(examples: &[Example]) -> Result<Vec<u8>, ReportError> {
    let rows = examples.iter().map(Row::decode).collect::<Result<Vec<_>, _>>()?;
    let pictures = || rows.iter().flat_map(|row| &row.cells).filter_map(|cell| cell.picture.as_ref());
    let width = (pictures().map(RgbImage::width).max().unwrap_or(0) + 2 * BORDER).max(NARROWEST);
    let height = pictures().map(RgbImage::height).max().unwrap_or(0) + 2 * BORDER;
    let row_height = height + GAP;
    let sheet_width = 2 * MARGIN + left_edge(2, SHOWN_HITS - 1, width) + width;
    let sheet_height = 2 * MARGIN + HEADER + (rows.len() as u32 * row_height).saturating_sub(GAP);
    let mut sheet = RgbImage::from_pixel(sheet_width, sheet_height, PAPER);
    for (group, place, words) in [
        (0, 0, "query"),
        (0, 1, "attacked"),
        (0, 2, "change"),
        (1, 0, "nearest before"),
        (2, 0, "nearest after"),
    ] {
        let x = MARGIN + left_edge(group, place, width);
        write(&mut sheet, words, x, MARGIN);
    }
    for (y, row) in (MARGIN + HEADER..).step_by(row_height as usize).zip(&rows) {
        for cell in &row.cells {
            cell.draw(&mut sheet, MARGIN + left_edge(cell.group, cell.place, width), y);
        }
    }
    let mut png = Cursor::new(Vec::new());
    sheet
        .write_to(&mut png, ImageFormat::Png)
        .map_err(|source| ReportError::Picture { name: "contact sheet".into(), source })?;
    Ok(png.into_inner())
}

/// Writes `words` with their upper left corner at `x`, `y`.
fn write(sheet: &mut RgbImage, words: &str, x: u32, y: u32) {
    let style = MonoTextStyle::new(&FONT_8X13_BOLD, INK);
    let text = Text::with_baseline(words, Point::new(x as i32, y as i32), style, Baseline::Top);
    let Ok(_) = text.draw(&mut Canvas(sheet));
}

/// A picture that text can be drawn on; what leaves it is cut off.
struct Canvas<'a>(&'a mut RgbImage);

impl OriginDimensions for Canvas<'_> {
    fn size(&self) -> Size {
        Size::new(self.0.width(), self.0.height())
    }
}

impl DrawTarget for Canvas<'_> {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(at, colour) in pixels {
            let place = u32::try_from(at.x).ok().zip(u32::try_from(at.y).ok());
            if let Some(pixel) = place.and_then(|(x, y)| self.0.get_pixel_mut_checked(x, y)) {
                *pixel = Rgb([colour.r(), colour.g(), colour.b()]);
            }
        }
        Ok(())
    }
}

struct Row {
    cells: Vec<Cell>,
}

impl Row {
    fn decode(example: &Example) -> Result<Self, ReportError> {
        let own = [&example.query_png, &example.adversarial_png, &example.perturbation_png]
            .map(|png| (png, &example.query, None));
        let mut cells = Vec::new();
        for (place, (png, name, correct)) in own.into_iter().enumerate() {
            cells.push(Cell { group: 0, place, correct, picture: decode(png, name)? });
        }
        for (group, hits) in [(1, &example.before), (2, &example.after)] {
            for (place, hit) in hits.iter().take(SHOWN_HITS).enumerate() {
                cells.push(Cell {
                    group,
                    place,
                    correct: Some(hit.correct),
                    picture: decode(&hit.png, &hit.name)?,
                });
            }
        }
        Ok(Self { cells })
    }
}

struct Cell {
    group: usize,
    place: usize,
    correct: Option<bool>,
    picture: Option<RgbImage>,
}

impl Cell {
    fn draw(&self, sheet: &mut RgbImage, x: u32, y: u32) {
        let Some(picture) = &self.picture else { return };
        imageops::replace(sheet, picture, i64::from(x + BORDER), i64::from(y + BORDER));
        let Some(correct) = self.correct else { return };
        let (width, height) = (picture.width() + 2 * BORDER, picture.height() + 2 * BORDER);
        for (dx, dy) in (0..width).flat_map(|dx| (0..height).map(move |dy| (dx, dy))) {
            let beside = !(BORDER..width - BORDER).contains(&dx);
            let above = !(BORDER..height - BORDER).contains(&dy);
            let dash = if above { dx } else { dy } % DASH < DASH_INK;
            if (beside || above) && (correct || dash) {
                sheet.put_pixel(x + dx, y + dy, if correct { RIGHT } else { WRONG });
            }
        }
    }
}

/// Left edge of the cell at `place` of `group`, from the margin.
fn left_edge(group: usize, place: usize, width: u32) -> u32 {
    let before = [0, 3, 3 + SHOWN_HITS].get(group).copied().unwrap_or(0) + place;
    before as u32 * (width + GAP) + group as u32 * (GROUP_GAP - GAP)
}

/// The picture at the size it is shown; none where there are no bytes, as in a report read back
/// from JSON.
fn decode(png: &[u8], name: &str) -> Result<Option<RgbImage>, ReportError> {
    if png.is_empty() {
        return Ok(None);
    }
    let picture = image::load_from_memory_with_format(png, ImageFormat::Png)
        .map_err(|source| ReportError::Picture { name: name.into(), source })?
        .to_rgb8();
    let longest = picture.width().max(picture.height()).max(1);
    let shown = if longest <= TINY {
        let factor = ENLARGED / longest;
        imageops::resize(&picture, picture.width() * factor, picture.height() * factor, FilterType::Nearest)
    } else if longest > LARGEST {
        let side = |n: u32| (n * LARGEST / longest).max(1);
        imageops::resize(&picture, side(picture.width()), side(picture.height()), FilterType::Triangle)
    } else {
        picture
    };
    Ok(Some(shown))
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    fn size(examples: &[Example]) -> (u32, u32) {
        let png = contact_sheet(examples).unwrap();
        let sheet = image::load_from_memory_with_format(&png, ImageFormat::Png).unwrap();
        (sheet.width(), sheet.height())
    }

    #[test]
    fn the_sheet_holds_thirteen_columns_and_a_row_per_example() {
        // 28 x 28 pixels become 84 x 84; a cell is 90 wide with its border.
        let examples = example::audit().examples;
        assert_eq!(examples.len(), 2);
        assert_eq!(size(&examples), (2 * 20 + 13 * 90 + 10 * 8 + 2 * 28, 2 * 20 + 24 + 2 * 90 + 8));
    }

    #[test]
    fn no_examples_and_missing_pictures_leave_room_empty() {
        assert_eq!(size(&[]).1, 64);
        let mut examples = example::audit().examples;
        examples[0].after[1].png.clear();
        examples[1].before.clear();
        assert_eq!(size(&examples).1, 252);
    }

    #[test]
    fn large_pictures_are_shrunk_and_middling_ones_kept() {
        for (given, shown) in
            [((400, 200), (128, 64)), ((1000, 1), (128, 1)), ((92, 112), (92, 112)), ((2, 1), (96, 48))]
        {
            let picture = decode(&example::png(given.0, given.1, 0), "x").unwrap().unwrap();
            assert_eq!(picture.dimensions(), shown);
        }
    }

    #[test]
    fn true_matches_are_green_and_solid_others_red_and_dashed() {
        let png = contact_sheet(&example::audit().examples).unwrap();
        let sheet = image::load_from_memory(&png).unwrap().to_rgb8();
        let border = |group| {
            let x = MARGIN + left_edge(group, 0, 90);
            (0..90).filter(|dx| *sheet.get_pixel(x + dx, MARGIN + HEADER) != PAPER).count()
        };
        assert_eq!(border(1), 90);
        assert!((50..=60).contains(&border(2)));
        assert_eq!(*sheet.get_pixel(MARGIN + left_edge(1, 0, 90), MARGIN + HEADER), RIGHT);
        assert_eq!(*sheet.get_pixel(MARGIN + left_edge(2, 0, 90), MARGIN + HEADER), WRONG);
    }

    #[test]
    fn the_columns_are_named() {
        let png = contact_sheet(&example::audit().examples).unwrap();
        let sheet = image::load_from_memory(&png).unwrap().to_rgb8();
        let inked = |group, place| {
            let x = MARGIN + left_edge(group, place, 90);
            let line = (x..x + 90).flat_map(|x| (MARGIN..MARGIN + HEADER).map(move |y| (x, y)));
            line.filter(|&(x, y)| *sheet.get_pixel(x, y) != PAPER).count()
        };
        for named in [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0)] {
            assert!(inked(named.0, named.1) > 50, "{named:?}");
        }
        assert_eq!(inked(2, 4), 0);
    }

    #[test]
    fn a_picture_that_is_no_png_is_named() {
        let mut examples = example::audit().examples;
        examples[0].before[2].png = b"not a png".to_vec();
        assert!(contact_sheet(&examples).unwrap_err().to_string().starts_with("picture `"));
    }
}
