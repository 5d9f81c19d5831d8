package disk

import (
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"
	"io"
)

// What an entry of the journal says of one row.
const (
	opPut    = 'P' // bucket, key and value, each after its length
	opDelete = 'D' // bucket and key
)

func appendPut(b []byte, bucket string, key, value []byte) []byte {
	b = appendRow(append(b, opPut), bucket, key)
	b = binary.AppendUvarint(b, uint64(len(value)))
	return append(b, value...)
}

func appendDelete(b []byte, bucket string, key []byte) []byte {
	return appendRow(append(b, opDelete), bucket, key)
}

func appendRow(b []byte, bucket string, key []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(bucket)))
	b = append(b, bucket...)
	b = binary.AppendUvarint(b, uint64(len(key)))
	return append(b, key...)
}

// An entry is one Update, as the journal has it.
type entry struct {
	state // that it leads to, but for the id
	ops   []byte
	end   int64 // in the file
}

// appendEntry returns what is appended to the journal for an Update.
func appendEntry(b []byte, st state, ops []byte) []byte {
	start := len(b)
	b = binary.LittleEndian.AppendUint32(b, entryMagic)
	b = binary.LittleEndian.AppendUint32(b, uint32(entryState+len(ops)))
	b = binary.LittleEndian.AppendUint64(b, st.sequence)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
	b = binary.LittleEndian.AppendUint64(b, uint64(st.changed))
	b = binary.LittleEndian.AppendUint64(b, st.rows)
	b = append(b, st.digest[:]...)
	b = append(b, ops...)
	s := sha256.Sum256(b[start:])
	return append(b, s[:sumSize]...)
}

// readEntry reads the entry that begins at a byte of a file of size bytes. The
// error is io.EOF at the end, and damage when there is no whole entry.
func readEntry(r io.ReaderAt, at, size int64) (entry, error) {
	if at >= size {
		return entry{}, io.EOF
	}
	header, err := readAt(r, at, min(entryHeader, size-at))
	if err != nil {
		return entry{}, err
	}
	length, sequence, ok := readEntryHeader(header)
	if !ok {
		return entry{}, damagef("byte %d: no entry begins here", at)
	}
	whole := entryHeader + length + sumSize
	if whole > size-at {
		return entry{}, damagef("byte %d: an entry of %d bytes, %d are there", at, whole, size-at)
	}
	b, err := readAt(r, at, whole)
	if err != nil {
		return entry{}, err
	}
	body, s := b[:len(b)-sumSize], b[len(b)-sumSize:]
	if sum256 := sha256.Sum256(body); string(sum256[:sumSize]) != string(s) {
		return entry{}, damagef("byte %d: the checksum of the entry does not match", at)
	}
	body = body[entryHeader:]
	return entry{
		state: state{
			sequence: sequence,
			changed:  int64(binary.LittleEndian.Uint64(body)),
			rows:     binary.LittleEndian.Uint64(body[8:]),
			digest:   sum(body[16:]),
		},
		ops: body[entryState:],
		end: at + whole,
	}, nil
}

// readEntryHeader returns the length of the body and the sequence, or false when
// b does not begin with the header of an entry.
func readEntryHeader(b []byte) (length int64, sequence uint64, ok bool) {
	if len(b) < entryHeader || binary.LittleEndian.Uint32(b) != entryMagic ||
		crc32.Checksum(b[:16], castagnoli) != binary.LittleEndian.Uint32(b[16:]) {
		return 0, 0, false
	}
	length = int64(binary.LittleEndian.Uint32(b[4:]))
	return length, binary.LittleEndian.Uint64(b[8:]), length >= entryState && length <= entryLimit
}

// apply makes the changes of an entry again, and compares where they lead with
// what the entry says.
func (e *entry) apply(tx *Tx) error {
	if err := e.change(tx); err != nil {
		return err
	}
	if got := tx.state; got.rows != e.rows || got.digest != e.digest {
		return damagef("entry %d: its changes lead to %d rows, %d wanted, or to others", e.sequence, got.rows, e.rows)
	}
	e.id = tx.state.id
	tx.state = e.state
	return nil
}

func (e *entry) change(tx *Tx) error {
	for b := e.ops; len(b) > 0; {
		op := b[0]
		var bucket, key, value []byte
		ok := op == opPut || op == opDelete
		if b = b[1:]; ok {
			bucket, b, ok = cutSized(b)
		}
		if ok {
			key, b, ok = cutSized(b)
		}
		if ok && op == opPut {
			value, b, ok = cutSized(b)
		}
		if !ok {
			return damagef("entry %d: it is not whole", e.sequence)
		}
		var err error
		if op == opPut {
			err = tx.Put(string(bucket), key, value)
		} else {
			err = tx.Delete(string(bucket), key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// cutSized takes what follows its length off b.
func cutSized(b []byte) (part, rest []byte, ok bool) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return nil, nil, false
	}
	return b[n : n+int(size)], b[n+int(size):], true
}
