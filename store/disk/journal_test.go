package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"strings"
	"testing"
)

// someJournal returns the bytes of a journal with three entries, and where each of
// them ends.
func someJournal() (b []byte, ends []int) {
	j := &journal{id: [16]byte{1, 2, 3}, base: 7}
	b = j.header()
	ends = []int{len(b)}
	for n := range uint64(3) {
		ops := appendPut(nil, "bucket", []byte{'k', byte(n)}, bytes.Repeat([]byte{'v'}, 50))
		ops = appendDelete(ops, "other", []byte("gone"))
		b = appendEntry(b, state{sequence: 8 + n, changed: 5, rows: n + 1}, ops)
		ends = append(ends, len(b))
	}
	return b, ends
}

func TestJournalIsReadToItsLastWholeEntry(t *testing.T) {
	whole, ends := someJournal()
	flip := func(at int) []byte {
		b := slices.Clone(whole)
		b[at] ^= 1
		return b
	}
	twice := slices.Concat(whole[:ends[2]], whole[ends[1]:])
	for _, tt := range []struct {
		name    string
		b       []byte
		last    uint64
		torn    int
		damage  string
		highest uint64
	}{
		{name: "whole", b: whole, last: 10, highest: 10},
		{name: "empty", b: whole[:ends[0]], last: 7, highest: 7},
		{name: "torn header of an entry", b: whole[:ends[2]+5], last: 9, torn: 5, highest: 9},
		{name: "torn entry", b: whole[:ends[3]-1], last: 9, torn: ends[3] - 1 - ends[2], highest: 9},
		{name: "zeros behind", b: append(slices.Clone(whole), make([]byte, 9000)...), last: 10, torn: 9000, highest: 10},
		{name: "last entry damaged", b: flip(ends[3] - 20), last: 9, torn: ends[3] - ends[2], highest: 9},
		{name: "first entry damaged", b: flip(ends[0] + 30), last: 7, damage: "byte 64: the checksum of the entry does not match", highest: 10},
		{name: "header of the first entry damaged", b: flip(ends[0] + 5), last: 7, damage: "byte 64: no entry begins here", highest: 10},
		{name: "second entry damaged", b: flip(ends[1] + 30), last: 8, damage: "the checksum of the entry does not match", highest: 10},
		{name: "second entry twice", b: twice, last: 9, damage: "entry 9 follows entry 9", highest: 10},
		{name: "second entry missing", b: slices.Concat(whole[:ends[1]], whole[ends[2]:]), last: 8, damage: "entry 10 follows entry 8", highest: 10},
		{name: "header damaged", b: flip(30), damage: "header: its checksum does not match", highest: 10},
		{name: "header cut short", b: whole[:40], damage: "cut short: 40 of 64 bytes"},
		{name: "nothing", damage: "cut short: 0 of 64 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var yielded []uint64
			read, err := readJournal(bytes.NewReader(tt.b), int64(len(tt.b)), func(e entry) error {
				yielded = append(yielded, e.sequence)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if read.journal.last != tt.last || read.torn != int64(tt.torn) || read.highest != tt.highest {
				t.Errorf("last %d, torn %d, highest %d; want %d, %d, %d",
					read.journal.last, read.torn, read.highest, tt.last, tt.torn, tt.highest)
			}
			if (read.damage == nil) != (tt.damage == "") || read.damage != nil && !strings.Contains(read.damage.Error(), tt.damage) {
				t.Errorf("damage %v, want %q in it", read.damage, tt.damage)
			}
			if len(yielded) > 0 && yielded[len(yielded)-1] != tt.last {
				t.Errorf("yielded %v, want up to %d", yielded, tt.last)
			}
		})
	}
}

func TestJournalOfLaterVersionIsNotDamaged(t *testing.T) {
	j := &journal{}
	b := j.header()
	b[8] = format + 1
	b = reseal(b)
	_, err := readJournal(bytes.NewReader(b), int64(len(b)), nil)
	if !newer(err) || Damaged(err) {
		t.Errorf("read: %v, want a later version", err)
	}
}

// reseal gives the header of a journal the checksum that it ought to have.
func reseal(b []byte) []byte {
	b = slices.Clone(b)
	copy(b[journalHeader-4:], checksum(b[:journalHeader-4]))
	return b
}

func TestJournalEntryThatLeadsElsewhereIsDamaged(t *testing.T) {
	db := mustOpen(t, Options{Dir: t.TempDir()})
	e := entry{state: state{sequence: 1, rows: 1}, ops: appendPut(nil, "a", []byte("1"), []byte("one"))}
	err := db.Update(func(tx *Tx) error { return errors.Join(e.apply(tx), errRolledBack) })
	if !Damaged(err) {
		t.Errorf("apply: %v, want damage: the digest is another", err)
	}
	for _, ops := range []string{"X", "P", "P\x05abc", "D\x01a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "P\x01a\x01k\x7fv"} {
		e := entry{ops: []byte(ops)}
		if err := db.Update(func(tx *Tx) error { return e.change(tx) }); !Damaged(err) {
			t.Errorf("apply %q: %v, want damage", ops, err)
		}
	}
}

// FuzzReadJournal reads anything as a journal. What it yields is what was written,
// byte by byte, and comes in order.
func FuzzReadJournal(f *testing.F) {
	whole, ends := someJournal()
	for _, end := range append(ends, 0, 30, len(whole)-7) {
		f.Add(whole[:end])
	}
	f.Add(slices.Concat(whole, whole[ends[0]:]))
	f.Add(slices.Concat(whole[:ends[1]], []byte("slj1"), whole[ends[1]:]))
	f.Fuzz(func(t *testing.T, b []byte) {
		at, last := int64(journalHeader), uint64(0)
		read, err := readJournal(bytes.NewReader(b), int64(len(b)), func(e entry) error {
			again := appendEntry(nil, e.state, e.ops)
			if !bytes.Equal(again, b[at:e.end]) {
				t.Errorf("entry at byte %d: not what was written", at)
			}
			if last != 0 && e.sequence != last+1 {
				t.Errorf("entry %d follows entry %d", e.sequence, last)
			}
			at, last = e.end, e.sequence
			return nil
		})
		switch {
		case err != nil:
			if !newer(err) {
				t.Errorf("read: %v", err)
			}
		case read.damage == nil && read.journal.size+read.torn != int64(len(b)):
			t.Errorf("%d bytes whole and %d torn, of %d", read.journal.size, read.torn, len(b))
		case read.highest < read.journal.last:
			t.Errorf("highest %d, last %d", read.highest, read.journal.last)
		}
	})
}

func checksum(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(nil, crc32.Checksum(b, castagnoli))
}
