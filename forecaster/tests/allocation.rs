//! The streaming step allocates nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use forecaster::kernel::{Network, Scratch};
use forecaster::weights::{Cell, Sizes, Weights};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator.
#[allow(unsafe_code, reason = "counting allocations takes an allocator")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_step_allocates_nothing() {
    Cell::ALL.into_iter().for_each(counted);
}

fn counted(cell: Cell) {
    let sizes = Sizes { cell, inputs: 8, hidden: 32, layers: 2 };
    let network = Network::new(&Weights::random(sizes, 1));
    let (mut state, mut scratch) = (network.zero_state(), Scratch::default());
    let input = [0.5; 8];
    network.step(&input, &mut state, &mut scratch);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..1000 {
        network.step(&input, &mut state, &mut scratch);
    }
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), before);
}
