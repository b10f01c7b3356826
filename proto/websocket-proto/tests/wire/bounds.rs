//! Hostile bytes: no panic, and no more memory than the limit allows.

use proptest::prelude::*;

use crate::client::{Receiver, any_frame, any_sizes, pieces};

/// What a decoder may hold beyond the message: an incomplete header, a control frame, its own fields.
const SLACK: usize = 14 + 125 + 160;

fn check(wire: &[u8], sizes: &[usize], message_bytes_max: usize) {
    let mut receiver = Receiver::new(message_bytes_max);
    let mut arrived = 0;
    for piece in pieces(wire, sizes) {
        arrived += piece.len();
        receiver.read(piece);
        let held = receiver.decoder.held_bytes();
        assert!(held <= message_bytes_max + SLACK, "{held} bytes held, limit {message_bytes_max}");
        assert!(held <= 2 * arrived + SLACK, "{held} bytes held after {arrived}");
    }
    if receiver.error.is_some() {
        assert_eq!(receiver.decoder.held_bytes(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes(
        wire in prop::collection::vec(any::<u8>(), 0..600),
        sizes in any_sizes(),
        limit in 0_usize..2000,
    ) {
        check(&wire, &sizes, limit);
    }

    #[test]
    fn a_good_header_and_arbitrary_bytes(
        first in prop::sample::select(vec![0x81_u8, 0x82, 0x01, 0x02, 0x88, 0x89]),
        second in 0x80_u8..,
        rest in prop::collection::vec(any::<u8>(), 0..600),
        sizes in any_sizes(),
        limit in prop_oneof![0_usize..2000, Just(usize::MAX)],
    ) {
        let wire = [&[first, second][..], &rest].concat();
        if limit == usize::MAX {
            // Only what arrived bounds the memory then.
            pieces(&wire, &sizes).iter().fold(Receiver::new(limit), |mut receiver, piece| {
                receiver.read(piece);
                receiver
            });
        } else {
            check(&wire, &sizes, limit);
        }
    }

    #[test]
    fn arbitrary_frames(
        frames in prop::collection::vec(any_frame(), 0..30),
        sizes in any_sizes(),
        limit in 0_usize..600,
    ) {
        let wire: Vec<u8> = frames.iter().flat_map(|frame| frame.wire()).collect();
        check(&wire, &sizes, limit);
    }
}
