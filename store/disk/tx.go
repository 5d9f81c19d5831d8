package disk

import (
	"bytes"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"
)

// Bounds of a row and of an Update, in bytes.
const (
	maxKey    = bbolt.MaxKeySize
	maxChange = 256 << 20 // all that one Update writes; it is held in memory
)

// A Tx is a view of all rows at one moment and, in an Update, what changes them.
// It ends with the function that it was given to, and belongs to the goroutine
// of that function.
type Tx struct {
	bolt  *bbolt.Tx
	state state // as this transaction leaves it
	ops   []byte
	grown int   // bytes of rows, less those that were taken out
	err   error // of a change that went wrong: such an Update cannot commit
}

// Get returns the value of key, a copy, and whether there is one.
func (tx *Tx) Get(bucket string, key []byte) ([]byte, bool, error) {
	value, _, found, err := tx.read(bucket, key)
	return bytes.Clone(value), found, err
}

// read lends the value of key, and its sum.
func (tx *Tx) read(bucket string, key []byte) ([]byte, sum, bool, error) {
	rows := tx.bolt.Bucket([]byte(bucket))
	if rows == nil {
		return nil, sum{}, false, nil
	}
	record := rows.Get(key)
	if record == nil {
		return nil, sum{}, false, nil
	}
	value, s, err := readRecord(bucket, key, record)
	return value, s, err == nil, err
}

// Put sets the value of key, which may be empty; the key may not. Neither is
// kept: both may be changed afterwards.
func (tx *Tx) Put(bucket string, key, value []byte) error {
	old, oldSum, found, err := tx.change(bucket, key, len(value))
	if err != nil || found && bytes.Equal(old, value) {
		return tx.fail(err)
	}
	rows := tx.bolt.Bucket([]byte(bucket))
	if rows == nil {
		if rows, err = tx.bolt.CreateBucket([]byte(bucket)); err != nil {
			return tx.fail(fmt.Errorf("create bucket %q: %w", bucket, err))
		}
	}
	record, s := appendRecord(bucket, key, value)
	if err := rows.Put(key, record); err != nil {
		return tx.fail(fmt.Errorf("put row %q of bucket %q: %w", key, bucket, err))
	}
	if found {
		tx.state.digest.fold(oldSum)
		tx.grown += len(value) - len(old)
	} else {
		tx.state.rows++
		tx.grown += len(key) + len(record)
	}
	tx.state.digest.fold(s)
	tx.ops = appendPut(tx.ops, bucket, key, value)
	return nil
}

// Delete removes the row of key, if there is one.
func (tx *Tx) Delete(bucket string, key []byte) error {
	old, oldSum, found, err := tx.change(bucket, key, 0)
	if err != nil || !found {
		return tx.fail(err)
	}
	tx.grown -= len(key) + len(old) + sumSize
	if err := tx.bolt.Bucket([]byte(bucket)).Delete(key); err != nil {
		return tx.fail(fmt.Errorf("delete row %q of bucket %q: %w", key, bucket, err))
	}
	tx.state.digest.fold(oldSum)
	tx.state.rows--
	tx.ops = appendDelete(tx.ops, bucket, key)
	return nil
}

// change checks that a row may be changed, and lends what it holds until then.
func (tx *Tx) change(bucket string, key []byte, size int) ([]byte, sum, bool, error) {
	switch {
	case !tx.bolt.Writable():
		return nil, sum{}, false, errors.New("change a row: this transaction only reads")
	case bucket == "" || bucket == ownBucket:
		return nil, sum{}, false, fmt.Errorf("change a row: %q is not a name for a bucket", bucket)
	case len(bucket) > maxKey || len(key) == 0 || len(key) > maxKey:
		return nil, sum{}, false, fmt.Errorf("change a row: key of %d bytes in bucket of %d bytes, limit 1 to %d", len(key), len(bucket), maxKey)
	case len(tx.ops)+len(bucket)+len(key)+size > maxChange:
		return nil, sum{}, false, fmt.Errorf("change a row: more than %d bytes at once", maxChange)
	}
	return tx.read(bucket, key)
}

// fail keeps the first error, so that a caller who overlooks it commits nothing.
func (tx *Tx) fail(err error) error {
	if tx.err == nil {
		tx.err = err
	}
	return err
}

// Ascend yields the rows of a bucket in the order of their keys, beginning at
// from; nil is the first row. It ends when yield returns false. What yield is
// given is lent: it may be read until yield returns, and the bucket may not be
// changed meanwhile.
func (tx *Tx) Ascend(bucket string, from []byte, yield func(key, value []byte) bool) error {
	rows := tx.bolt.Bucket([]byte(bucket))
	if rows == nil {
		return nil
	}
	cursor := rows.Cursor()
	key, record := cursor.Seek(from)
	return each(bucket, key, record, cursor.Next, yield)
}

// Descend is Ascend in the other direction: it begins at from, or at the last
// row before it; nil is the last row of all.
func (tx *Tx) Descend(bucket string, from []byte, yield func(key, value []byte) bool) error {
	rows := tx.bolt.Bucket([]byte(bucket))
	if rows == nil {
		return nil
	}
	cursor := rows.Cursor()
	key, record := cursor.Last()
	if from != nil {
		key, record = cursor.Seek(from)
		if key == nil {
			key, record = cursor.Last()
		} else if !bytes.Equal(key, from) {
			key, record = cursor.Prev()
		}
	}
	return each(bucket, key, record, cursor.Prev, yield)
}

func each(bucket string, key, record []byte, next func() ([]byte, []byte), yield func(key, value []byte) bool) error {
	for ; key != nil; key, record = next() {
		value, _, err := readRecord(bucket, key, record)
		if err != nil {
			return err
		}
		if !yield(key, value) {
			return nil
		}
	}
	return nil
}

// newTx reads the state that the transaction starts from.
func newTx(bolt *bbolt.Tx) (*Tx, error) {
	tx := &Tx{bolt: bolt}
	value, _, found, err := tx.read(ownBucket, []byte(stateKey))
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, damagef("it does not say what it holds")
	}
	tx.state, err = readState(value)
	return tx, err
}

// putState writes the state, and the format when it is new.
func (tx *Tx) putState() error {
	own, err := tx.bolt.CreateBucketIfNotExists([]byte(ownBucket))
	if err != nil {
		return err
	}
	if own.Get([]byte(formatKey)) == nil {
		record, _ := appendRecord(ownBucket, []byte(formatKey), []byte{format, 0, 0, 0})
		if err := own.Put([]byte(formatKey), record); err != nil {
			return err
		}
	}
	record, _ := appendRecord(ownBucket, []byte(stateKey), tx.state.append(nil))
	return own.Put([]byte(stateKey), record)
}
