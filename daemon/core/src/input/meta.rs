//! The contract's record `meta` in an image.

use arrow_array::Array;

use super::decode::Place;
use super::image::{Block, Image, Region};
use super::records::Records;
use super::{MetaType, OptionalBytes};

pub(super) fn write(ty: &MetaType, records: &Records<'_>, row: usize, image: &mut Image, event: Place) {
    let place = event.plus(ty.at);
    let topic = records.chunk.topic_of(row);
    let (start, end) = (records.topics.value_offsets()[topic], records.topics.value_offsets()[topic + 1]);
    push(image, place.plus(ty.topic), Region::Topics, start, end);
    image.write(place.holder, place.at + ty.partition, &records.partitions[row].to_le_bytes());
    image.write(place.holder, place.at + ty.offset, &records.offsets[row].to_le_bytes());
    image.write(place.holder, place.at + ty.timestamp, &records.chunk.timestamp(row).to_le_bytes());
    if records.keys.is_valid(row) {
        let (start, end) = (records.keys.value_offsets()[row], records.keys.value_offsets()[row + 1]);
        push_optional(image, place, ty.key, Region::Keys, start, end);
    }
    let (first, last) = (records.headers.ends[row], records.headers.ends[row + 1]);
    let (count, size) = ((last - first) as u32, ty.header.layout.size);
    let items = image.push_items((count * size) as usize);
    let pointer = place.at + ty.headers;
    let block = Block {
        holder: place.holder,
        pointer,
        region: Region::Nested,
        start: items,
        len: count * size,
        align: ty.header.layout.align,
    };
    image.push_block(block, count);
    for (at, header) in (first as usize..last as usize).enumerate() {
        let place = Place { holder: Region::Nested, at: items + at as u32 * size };
        let names = records.headers.names.value_offsets();
        push(image, place.plus(ty.header.name), Region::HeaderNames, names[header], names[header + 1]);
        if records.headers.values.is_valid(header) {
            let values = records.headers.values.value_offsets();
            let (start, end) = (values[header], values[header + 1]);
            push_optional(image, place, ty.header.value, Region::HeaderValues, start, end);
        }
    }
}

fn push(image: &mut Image, place: Place, region: Region, start: i32, end: i32) {
    let (start, len) = (start as u32, (end - start) as u32);
    image.push_block(Block { holder: place.holder, pointer: place.at, region, start, len, align: 1 }, len);
}

fn push_optional(image: &mut Image, place: Place, ty: OptionalBytes, region: Region, start: i32, end: i32) {
    image.write(place.holder, place.at + ty.at, &[1]);
    push(image, place.plus(ty.at + ty.payload), region, start, end);
}
