//! What a waiting stream's thread keeps of memory. A thread's begin needs much more stack than its waiting, and the C
//! library zeroes all thread-local variables of all libraries linked, 15 KiB of them, though no stream uses them:
//! with 10,000 streams that would be more than all the rest.

use std::mem::MaybeUninit;

/// The page size of every machine that this runs on, or a divisor of it that madvise(2) then refuses: no harm.
const PAGE: usize = 4096;

/// Gives back to the kernel what this thread's stack holds for nothing: all below the frames in use, and pages of
/// zeros above, which read as zeros again whenever they are touched. Costs a few microseconds.
#[allow(unsafe_code)]
pub fn trim_stack() {
    let Some((low, high)) = own_stack() else { return };
    let here = (&raw const low).addr();
    if !(low..high).contains(&here) {
        return;
    }
    // A page is left for the calls from here.
    let unused = (here & !(PAGE - 1)).saturating_sub(PAGE);
    if unused > low {
        // SAFETY: the range is below every frame of this thread, in its own stack: nothing there is ever read again
        // before it is written.
        unsafe { give_back(low, unused - low) };
    }
    for page in (here.next_multiple_of(PAGE)..high).step_by(PAGE).filter(|page| page + PAGE <= high) {
        // SAFETY: the page is in this thread's own stack mapping, readable and aligned. The thread itself is here and
        // writes to none of it; no other thread has a pointer into it, since nothing is lent out while a stream
        // begins. A page of zeros that is given back is a page of zeros.
        unsafe {
            let words = std::slice::from_raw_parts(std::ptr::with_exposed_provenance::<u64>(page), PAGE / 8);
            if words.iter().all(|word| *word == 0) {
                give_back(page, PAGE);
            }
        }
    }
}

/// Lets the kernel take the pages; they read as zeros from then on.
///
/// # Safety
/// The range is private anonymous memory of this process, and its content is not needed.
#[allow(unsafe_code)]
unsafe fn give_back(start: usize, bytes: usize) {
    // SAFETY: as the caller promises. A range that is refused stays as it is.
    unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(start), bytes, libc::MADV_DONTNEED) };
}

/// Where this thread's stack mapping begins and ends; the thread-local variables are at its end.
#[allow(unsafe_code)]
fn own_stack() -> Option<(usize, usize)> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let (mut low, mut bytes) = (std::ptr::null_mut(), 0);
    // SAFETY: pthread_getattr_np(3) fills the attributes of a living thread, this one; they are read and destroyed
    // only if it did.
    let found = unsafe {
        if libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) != 0 {
            return None;
        }
        let found = libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut low, &raw mut bytes) == 0;
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        found
    };
    found.then(|| (low.addr(), low.addr() + bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    std::thread_local! {
        static KEPT: std::cell::Cell<[u64; 2048]> = const { std::cell::Cell::new([0; 2048]) };
    }

    /// Fills a frame far below, and gives what it held.
    #[inline(never)]
    fn deep(seed: u8) -> u64 {
        let frame = [seed; 48 << 10];
        std::hint::black_box(&frame).iter().map(|byte| u64::from(*byte)).sum()
    }

    #[test]
    fn what_is_in_use_stays_and_deep_calls_still_work() {
        let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(|| {
            let mut words = [0; 2048];
            (words[7], words[2000]) = (7, 2000);
            KEPT.set(words);
            let here = [3u8; 9000];
            let before = deep(1);
            for _ in 0..3 {
                trim_stack();
                assert_eq!((KEPT.get()[7], KEPT.get()[2000], KEPT.get()[8]), (7, 2000, 0));
                assert!(std::hint::black_box(&here).iter().all(|byte| *byte == 3));
                assert_eq!(deep(1), before);
            }
        });
        thread.unwrap().join().unwrap();
    }
}
