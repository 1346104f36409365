//! Events that are written into a guest's memory: the guest returns what it gets, and wasmtime reads it.

use std::cell::RefCell;

use silverd::plugin::{Rooms, TypedEvents};
use silverd_core::chunk::Chunk;
use silverd_core::input::{Decoder, EventType, Image, Records};
use wasmtime::component::{Component, Func, Linker, TypedFunc};
use wasmtime::{Engine, Store};
use wit_component::StringEncoding;

use super::events::{EVENT_BYTES_MAX, INPUT, TOPIC, chunk_of};
use super::{guest, planted};
use echo::exports::test::lower::events::Event;

mod echo {
    wasmtime::component::bindgen!({
        path: ["../../wit/types.wit", "../tests/it/fixtures/lower.wit"],
        world: "test:lower/lower",
        additional_derives: [Clone],
    });
}

/// Bytes that may be copied from the guest and to it: more than any two events take.
const BYTES_MAX: usize = 64 << 20;

struct Guest {
    store: Store<()>,
    transform: Func,
    ty: EventType,
}

impl Guest {
    fn new() -> Self {
        let code = [guest::ALLOCATOR, guest::REALLOC, &guest::echo("test:lower/events@0.1.0#transform")].concat();
        let module = guest::module(&code, guest::TYPES, INPUT, "lower", StringEncoding::UTF8);
        let engine = Engine::default();
        let component = Component::from_binary(&engine, &guest::component(&module)).expect("a component");
        let mut store = Store::new(&engine, ());
        store.set_hostcall_fuel(BYTES_MAX);
        let instance = Linker::new(&engine).instantiate(&mut store, &component).expect("an instance");
        let events = instance.get_export_index(&mut store, None, "test:lower/events@0.1.0").expect("the interface");
        let transform = instance.get_export_index(&mut store, Some(&events), "transform").expect("the function");
        // Checks the types once.
        let transform: TypedFunc<(TypedEvents<'static>,), (Vec<Event>,)> =
            instance.get_typed_func(&mut store, transform).expect("the guest's type");
        Self { transform: *transform.func(), store, ty: guest::event_type(INPUT) }
    }

    /// What wasmtime reads after silverd has written the events; `None` if one does not fit the type.
    fn events(&mut self, chunk: &Chunk, rooms: Rooms) -> Option<Vec<Event>> {
        let records = Records::new(chunk);
        let (mut decoder, mut image) = (Decoder::default(), Image::default());
        for row in 0..chunk.records.num_rows() {
            decoder.decode(&self.ty, &records, row, &mut image, EVENT_BYTES_MAX).ok()?;
        }
        self.store.set_hostcall_fuel(BYTES_MAX);
        // SAFETY: the types were checked with another lifetime, on which no check depends; the borrow ends with the call.
        let transform = unsafe { TypedFunc::<(TypedEvents<'_>,), (Vec<Event>,)>::new_unchecked(self.transform) };
        let called = transform.call(&mut self.store, (TypedEvents::new(&records, &self.ty, rooms, &mut image),));
        let (events,) = called.expect("the guest takes every event that fits");
        Some(events)
    }
}

/// An event that fits arrives in the guest, and is the same whichever way room is asked for and whatever is next to it.
pub fn lower(value: &[u8]) {
    thread_local! {
        static GUEST: RefCell<Option<Guest>> = const { RefCell::new(None) };
    }
    let chunk = chunk_of(Some(b"k"), &[value, value]);
    GUEST.with_borrow_mut(|guest| {
        let guest = guest.get_or_insert_with(Guest::new);
        let each = guest.events(&chunk, Rooms::Each);
        let block = guest.events(&chunk, Rooms::OneBlock);
        let (Some(each), Some(block)) = (&each, &block) else {
            return assert!(each.is_none() && block.is_none(), "whether an event fits depends on its room");
        };
        // Texts, since a NaN equals nothing.
        let texts = |events: &[Event]| events.iter().map(|event| format!("{:?}", event.input)).collect::<Vec<String>>();
        let (of_each, of_block) = (texts(each), texts(block));
        assert_eq!(of_each.len(), 2);
        assert!(of_each[0] == of_each[1] && of_each == of_block, "{of_each:?}\n{of_block:?}");
        for (offset, event) in each.iter().enumerate() {
            let meta = &event.meta;
            assert_eq!(
                (meta.topic.as_str(), meta.offset, meta.key.as_deref()),
                (TOPIC, offset as i64, Some(&b"k"[..]))
            );
        }
        let input = &each[0].input;
        let text = String::from_utf8_lossy(value);
        assert!(text.contains(&input.rest), "{} is not in {text}", input.rest);
        planted(|| input.tags.len() >= 3 && input.counts.len() >= 3);
    });
}
