package disk

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// A record is what bbolt keeps for a row: the value, then the sum of the row.
// bbolt has no checksum on its data pages: a flipped bit would be served.

// sumSize is how many bytes of a SHA-256 a sum keeps. Sixteen leave damage no
// chance, and two rows none to cancel each other out in a digest.
const sumSize = 16

// A sum vouches for one row: its bucket, its key and its value, so that a row
// that turns up in another's place is damage as well.
type sum [sumSize]byte

// sumOf hashes the row. Lengths come first, so that no two rows read alike.
func sumOf(bucket string, key, value []byte) sum {
	var lengths [8]byte
	binary.LittleEndian.PutUint32(lengths[:4], uint32(len(bucket)))
	binary.LittleEndian.PutUint32(lengths[4:], uint32(len(key)))
	h := sha256.New()
	h.Write(lengths[:])
	h.Write([]byte(bucket))
	h.Write(key)
	h.Write(value)
	var whole [sha256.Size]byte
	return sum(h.Sum(whole[:0])[:sumSize])
}

// fold adds s to a digest or, when it is in there already, takes it out.
func (s *sum) fold(other sum) {
	for i := range s {
		s[i] ^= other[i]
	}
}

// appendRecord returns what is stored for a row, and its sum.
func appendRecord(bucket string, key, value []byte) ([]byte, sum) {
	s := sumOf(bucket, key, value)
	record := make([]byte, 0, len(value)+sumSize)
	return append(append(record, value...), s[:]...), s
}

// readRecord returns the value and the sum of a row, after comparing the two.
// The value is a part of record.
func readRecord(bucket string, key, record []byte) ([]byte, sum, error) {
	if len(record) < sumSize {
		return nil, sum{}, damagef("row %q of bucket %q: %d bytes, shorter than its checksum", key, bucket, len(record))
	}
	end := len(record) - sumSize
	value, s := record[:end:end], sum(record[end:])
	if sumOf(bucket, key, value) != s {
		return nil, sum{}, damagef("row %q of bucket %q: its checksum does not match", key, bucket)
	}
	return value, s, nil
}

// Rows of ours that say what a file holds, kept in a bucket of their own.
const (
	ownBucket = "sluice.disk"
	formatKey = "format" // uint32; alone, so that any later version finds it
	stateKey  = "state"  // a state
)

// format is the version of all files that this package writes. A file of a later
// one is left alone.
const format = 1

// A state is what a file says of all its rows. It changes with each of them.
type state struct {
	id       [16]byte // which store this is: drawn once, kept by all copies
	sequence uint64   // of the last Update
	changed  int64    // when that was, in milliseconds since 1970
	rows     uint64   // how many, without those of ownBucket
	digest   sum      // all sums folded together
}

const stateSize = 16 + 8 + 8 + 8 + sumSize

func (s *state) append(b []byte) []byte {
	b = append(b, s.id[:]...)
	b = binary.LittleEndian.AppendUint64(b, s.sequence)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.changed))
	b = binary.LittleEndian.AppendUint64(b, s.rows)
	return append(b, s.digest[:]...)
}

func readState(b []byte) (state, error) {
	if len(b) != stateSize {
		return state{}, damagef("state of %d bytes, want %d", len(b), stateSize)
	}
	return state{
		id:       [16]byte(b),
		sequence: binary.LittleEndian.Uint64(b[16:]),
		changed:  int64(binary.LittleEndian.Uint64(b[24:])),
		rows:     binary.LittleEndian.Uint64(b[32:]),
		digest:   sum(b[40:]),
	}, nil
}

// checkFormat tells a file that this version reads from one of a later version.
func checkFormat(value []byte) error {
	if len(value) != 4 {
		return damagef("format of %d bytes, want 4", len(value))
	}
	if found := binary.LittleEndian.Uint32(value); found != format {
		return &newerError{what: fmt.Sprintf("format %d, this version reads format %d", found, format)}
	}
	return nil
}
