package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
)

// The journal is what each Update changed, appended and on the disk before bbolt
// sees it. Whatever happens to the file of rows, the last copy and the journal
// together hold everything that was acknowledged: after each copy the journal
// drops what the copy holds, and nothing else.
//
// All numbers are little-endian.
//
//	header   magic [8], format uint32, id [16], base uint64, zeros, CRC-32C uint32: 64 bytes
//	entry    magic uint32, length of the body uint32, sequence uint64, CRC-32C of these uint32;
//	         body; SHA-256 of all this [16]
//	body     changed int64, rows uint64, digest [16]: the state that it leads to; rows
//
// Entries are numbered without a gap from base + 1. A crash may leave an entry at
// the end that is not whole: nobody was told that it was written.
const (
	journalHeader = 64
	entryHeader   = 20
	entryState    = 8 + 8 + sumSize
	entryMagic    = 0x316a6c73 // "slj1"

	// journalLong is the size from which on a copy, after which it is short
	// again, does not wait for its hour.
	journalLong = 16 << 20

	// entryLimit bounds a body, so that damage does not reserve memory.
	entryLimit = maxChange + entryState + 1<<20
)

var (
	journalMagic = [8]byte{'s', 'l', 'u', 'i', 'c', 'e', 'j', '\n'}
	castagnoli   = crc32.MakeTable(crc32.Castagnoli)
)

// journalFile is what a journal asks of its file.
type journalFile interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	Sync() error // of the content and the size; the times may wait
}

// A journal is open for appending. Owned by whoever holds DB.writing.
type journal struct {
	file journalFile
	path string
	id   [16]byte
	base uint64 // entries up to this one were dropped
	last uint64 // of the last entry; base when there is none
	size int64  // up to the end of the last entry
}

// header returns the first bytes of a journal.
func (j *journal) header() []byte {
	b := make([]byte, journalHeader)
	copy(b, journalMagic[:])
	binary.LittleEndian.PutUint32(b[8:], format)
	copy(b[12:], j.id[:])
	binary.LittleEndian.PutUint64(b[28:], j.base)
	binary.LittleEndian.PutUint32(b[journalHeader-4:], crc32.Checksum(b[:journalHeader-4], castagnoli))
	return b
}

// readHeader returns a journal that knows what its header says.
func readHeader(r io.ReaderAt) (*journal, error) {
	b, err := readAt(r, 0, journalHeader)
	if err != nil {
		return nil, err
	}
	if [8]byte(b) != journalMagic || crc32.Checksum(b[:journalHeader-4], castagnoli) != binary.LittleEndian.Uint32(b[journalHeader-4:]) {
		return nil, damagef("header: its checksum does not match")
	}
	if found := binary.LittleEndian.Uint32(b[8:]); found != format {
		return nil, &newerError{what: fmt.Sprintf("format %d, this version reads format %d", found, format)}
	}
	j := &journal{id: [16]byte(b[12:]), base: binary.LittleEndian.Uint64(b[28:]), size: journalHeader}
	j.last = j.base
	return j, nil
}

// append makes the entry durable, or leaves the journal as it was. When even that
// cannot be done, the error is a tornError: the entry may come back at a restart.
func (j *journal) append(entry []byte, sequence uint64) error {
	_, err := j.file.WriteAt(entry, j.size)
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write journal %q: %w", j.path, asFull(err)), j.cut(j.size, j.last))
	}
	j.size += int64(len(entry))
	j.last = sequence
	return nil
}

// cut drops what lies behind size, where the entry of sequence last ends.
func (j *journal) cut(size int64, last uint64) error {
	err := j.file.Truncate(size)
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		return &tornError{err: fmt.Errorf("cut journal %q: %w", j.path, err)}
	}
	j.size, j.last = size, last
	return nil
}

// tornError is a journal that may hold an entry that it should not hold.
type tornError struct{ err error }

func (e *tornError) Error() string { return e.err.Error() }
func (e *tornError) Unwrap() error { return e.err }

func isTorn(err error) bool {
	var torn *tornError
	return errors.As(err, &torn)
}

// newJournal writes a journal that begins behind base in the place of the one in
// dir, if there is one, with the entries that kept yields.
func newJournal(dir string, id [16]byte, base uint64, kept io.Reader, last uint64) (*journal, error) {
	path := filepath.Join(dir, journalName)
	file, err := os.OpenFile(path+newSuffix, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create journal: %w", asFull(err))
	}
	j := &journal{file: durable{file}, path: path, id: id, base: base, last: last}
	if err := j.write(kept); err != nil {
		return nil, errors.Join(fmt.Errorf("create journal: %w", asFull(err)), file.Close(), os.Remove(path+newSuffix))
	}
	return j, nil
}

// write fills a new journal and gives it its name.
func (j *journal) write(kept io.Reader) error {
	content := io.MultiReader(bytes.NewReader(j.header()), kept)
	var err error
	j.size, err = io.Copy(io.NewOffsetWriter(j.file, 0), content)
	if err == nil {
		err = j.file.Sync()
	}
	if err == nil {
		err = os.Rename(j.path+newSuffix, j.path)
	}
	return err
}
