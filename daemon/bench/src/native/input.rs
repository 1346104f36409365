//! The inputs of the plugins, read from the events that the host has decoded: what a guest does with the same bytes in its
//! memory.

use silverd::plugin::native::Events;
use silverd_core::input::{Field, Image, Records, Slot, Type};

/// A record in an image.
pub(super) struct Record<'e> {
    image: &'e Image,
    records: &'e Records<'e>,
    bytes: &'e [u8],
    fields: &'e [Field],
}

/// The input of each event. In the place of addresses the image gets the numbers of its blocks.
pub(super) fn inputs<T>(events: &mut Events<'_>, input: fn(&Record<'_>) -> T) -> Vec<T> {
    let Events::Typed { records, ty, image, .. } = events else { return Vec::new() };
    let Type::Record(fields) = &ty.input.ty else { return Vec::new() };
    for number in 0..image.blocks().len() {
        let block = image.blocks()[number];
        image.set_pointer(&block, number as u32);
    }
    let events = image.events().chunks_exact(ty.layout.size as usize);
    events.map(|bytes| input(&Record { image, records, bytes, fields })).collect()
}

pub(super) fn page_view(record: &Record<'_>) -> page_view::Input {
    page_view::Input {
        event_id: record.text(0),
        user_id: record.text(1),
        ts: record.long(2),
        url: record.optional(3),
        referrer: record.optional(4),
        ua: record.optional(5),
        session_hint: record.optional(6),
    }
}

pub(super) fn add_to_cart(record: &Record<'_>) -> add_to_cart::Input {
    add_to_cart::Input {
        event_id: record.text(0),
        user_id: record.text(1),
        ts: record.long(2),
        sku: record.text(3),
        qty: record.int(4),
        price: record.long(5),
    }
}

pub(super) fn order_placed(record: &Record<'_>) -> order_placed::Input {
    let item = |item: Record<'_>| order_placed::InputItem { sku: item.text(0), qty: item.int(1), price: item.long(2) };
    order_placed::Input {
        event_id: record.text(0),
        order_id: record.text(1),
        user_id: record.text(2),
        ts: record.long(3),
        total: record.long(4),
        line_items: record.items(5).map(item).collect(),
    }
}

impl<'e> Record<'e> {
    fn slot(&self, field: usize) -> &'e Slot {
        &self.fields[field].slot
    }

    fn cell<const W: usize>(&self, at: u32) -> [u8; W] {
        let mut cell = [0; W];
        cell.copy_from_slice(&self.bytes[at as usize..at as usize + W]);
        cell
    }

    fn long(&self, field: usize) -> i64 {
        i64::from_le_bytes(self.cell(self.slot(field).at))
    }

    fn int(&self, field: usize) -> u32 {
        u32::from_le_bytes(self.cell(self.slot(field).at))
    }

    /// The bytes of the string or list whose pair of address and length is at an offset.
    fn block(&self, at: u32) -> &'e [u8] {
        let block = self.image.blocks()[u32::from_le_bytes(self.cell(at)) as usize];
        self.image.content(self.records, &block)
    }

    fn string(&self, at: u32) -> String {
        String::from_utf8_lossy(self.block(at)).into_owned()
    }

    fn text(&self, field: usize) -> String {
        self.string(self.slot(field).at)
    }

    fn optional(&self, field: usize) -> Option<String> {
        let Slot { at, optional, .. } = self.slot(field);
        (self.bytes[*at as usize] == 1).then(|| self.string(at + optional.unwrap_or_default()))
    }

    fn items(&self, field: usize) -> impl Iterator<Item = Record<'e>> + use<'e> {
        let Self { image, records, .. } = *self;
        let (bytes, fields, size) = match &self.slot(field).ty {
            Type::List(item) => match &item.slot.ty {
                Type::Record(fields) => (self.block(self.slot(field).at), &fields[..], item.layout.size),
                _ => (&[][..], &[][..], 1),
            },
            _ => (&[][..], &[][..], 1),
        };
        bytes.chunks_exact(size as usize).map(move |bytes| Record { image, records, bytes, fields })
    }
}
