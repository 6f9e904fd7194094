//! The streaming step allocates nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell as Counter;

use forecaster::kernel::{Network, Scratch};
use forecaster::weights::{Cell, Sizes, Weights};

struct Counting;

thread_local! {
    /// Of this thread: the one that runs the tests tells of them meanwhile.
    static ALLOCATIONS: Counter<usize> = const { Counter::new(0) };
}

// SAFETY: everything is passed on to the system's allocator.
#[allow(unsafe_code, reason = "counting allocations takes an allocator")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that ends has none any more.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
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
    let before = ALLOCATIONS.get();
    for _ in 0..1000 {
        network.step(&input, &mut state, &mut scratch);
    }
    assert_eq!(ALLOCATIONS.get(), before);
    drop(std::hint::black_box(Box::new(before)));
    assert!(ALLOCATIONS.get() > before, "what allocates is counted");
}
