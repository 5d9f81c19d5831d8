package store

import "sluice/store/disk"

// ErrFull is wrapped by a write for which there is no room. Nothing was changed,
// everything can still be read, and writes work again when there is room.
var ErrFull = disk.ErrFull

// Damaged tells whether err says that a file, a backup say, is not what was written
// to it, as opposed to one that cannot be reached.
func Damaged(err error) bool { return disk.Damaged(err) }
