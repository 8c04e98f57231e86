//! What the allocator is told once, before any thread starts.

/// Allocations from this size on are given back to the system when they are freed.
const LARGE_BYTES: libc::c_int = 256 << 10;

/// Fixes the size from which the allocator maps memory of its own.
///
/// glibc raises it to 32 MiB as large buffers come and go; then they stay with
/// the threads that freed them, and a server that moves bytes keeps three times
/// what it ever uses at once. Source: mallopt(3), `M_MMAP_THRESHOLD`.
#[allow(unsafe_code, reason = "the C library offers it in no other way")]
pub fn give_back_large_buffers() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes two numbers; that it changes the allocator for all threads is what is wanted.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
    }
}
