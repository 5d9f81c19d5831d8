package disk

import (
	"bytes"
	"encoding/binary"
	"io"
)

// A reading is how far a journal could be read.
type reading struct {
	journal *journal // up to its last whole entry
	torn    int64    // bytes behind that, the rest of an Update that a crash cut off
	damage  error    // of the header, or of an entry that had been whole; nil otherwise
	highest uint64   // sequence of the last whole entry, also behind damage
}

// readJournal yields the whole entries of the journal in r; none, when its header
// is damaged. An error of yield that is damage is damage of its entry.
func readJournal(r io.ReaderAt, size int64, yield func(entry) error) (*reading, error) {
	j, err := readHeader(r)
	if Damaged(err) {
		read := &reading{journal: &journal{}, damage: err}
		return read, read.behind(r, size, err)
	}
	if err != nil {
		return nil, err
	}
	read := &reading{journal: j, highest: j.base}
	for {
		e, err := readEntry(r, j.size, size)
		if err == io.EOF {
			return read, nil
		}
		if Damaged(err) {
			return read, read.behind(r, size, err)
		}
		if err == nil {
			err = follow(j, e, yield)
		}
		if Damaged(err) {
			read.damage = err
			return read, read.behind(r, size, err)
		}
		if err != nil {
			return nil, err
		}
		j.size, j.last, read.highest = e.end, e.sequence, e.sequence
	}
}

func follow(j *journal, e entry, yield func(entry) error) error {
	if e.sequence != j.last+1 {
		return damagef("byte %d: entry %d follows entry %d", j.size, e.sequence, j.last)
	}
	return yield(e)
}

// behind looks for whole entries behind the end of the journal. There are none
// behind an entry that was never finished.
func (read *reading) behind(r io.ReaderAt, size int64, cause error) error {
	const window = 1 << 20
	var magic [4]byte
	binary.LittleEndian.PutUint32(magic[:], entryMagic)
	for at := read.journal.size; at < size; {
		b, err := readAt(r, at, min(window, size-at))
		if err != nil {
			return err
		}
		found := bytes.Index(b, magic[:])
		if found < 0 {
			at += int64(max(1, len(b)-len(magic)+1)) // it may lie across the end
			continue
		}
		at += int64(found)
		e, err := readEntry(r, at, size)
		switch {
		case err == nil && e.sequence > read.journal.last:
			read.damage, read.highest = cause, max(read.highest, e.sequence)
		case err != nil && !Damaged(err):
			return err
		}
		at++
	}
	if read.damage == nil {
		read.torn = size - read.journal.size
	}
	return nil
}
