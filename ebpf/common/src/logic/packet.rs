//! Access to a packet's bytes.

use super::parse::Meta;
use super::tables::Tables;
use super::{Action, answer, icmp_error};
use crate::event::Reason;

/// Types that a packet's bytes can be read as: any bit pattern is valid, no padding.
///
/// # Safety
/// Only for such types.
pub unsafe trait Wire: Copy {}
// SAFETY: plain integers and arrays of them.
unsafe impl Wire for u8 {}
// SAFETY: as above.
unsafe impl Wire for u16 {}
// SAFETY: as above.
unsafe impl Wire for u32 {}
// SAFETY: as above.
unsafe impl Wire for u64 {}
// SAFETY: as above.
unsafe impl<T: Wire, const N: usize> Wire for [T; N] {}

/// How an L4 checksum takes part in a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct L4Csum {
    /// Of the checksum field, from the start of the frame.
    pub offset: usize,
    /// The changed bytes are part of the pseudo-header, which is all that a partial checksum
    /// (`CHECKSUM_PARTIAL`) covers.
    pub pseudo: bool,
    pub v6: bool,
    /// UDP: 0 means none, and stays.
    pub udp: bool,
}

/// A frame, from its Ethernet header on.
pub trait Packet {
    /// Length of the whole frame, bytes.
    fn len(&self) -> u32;
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// `None` beyond the end.
    fn read<T: Wire>(&self, offset: usize) -> Option<T>;
    fn write<T: Wire>(&mut self, offset: usize, value: T) -> Option<()>;
    /// Adds `diff` (of [`super::csum::diff`]) to an L4 checksum.
    fn update_l4(&mut self, csum: L4Csum, diff: u32) -> Option<()>;
    /// Bytes changed that no checksum in the packet compensates.
    fn uncompensated(&mut self, diff: u32);
    /// Cuts or grows the frame's tail; partial checksums and segmentation are forgotten.
    fn resize(&mut self, len: u32) -> Option<()>;

    // Stages, as in [`Tables`].

    /// An ICMP error of a known flow: [`icmp_error::related`].
    #[inline(always)]
    fn related<T: Tables>(&mut self, t: &mut T, m: &mut Meta, own_only: bool) -> Option<u32>
    where
        Self: Sized,
    {
        icmp_error::related(self, t, m, own_only)
    }
    /// Turned into the answer to its sender: [`answer::answer`].
    #[inline(always)]
    fn answer<T: Tables>(&mut self, t: &mut T, m: &mut Meta, reason: Reason) -> Action
    where
        Self: Sized,
    {
        answer::answer(self, t, m, reason)
    }
}
