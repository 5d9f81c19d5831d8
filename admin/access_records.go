package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// Records are the rows that access keeps: accounts, sessions, tokens, the set-up
// link, the audit log. What Update wrote is durable when it returns nil, all of
// it or nothing; one runs at a time.
type Records interface {
	View(func(RecordsTx) error) error
	Update(func(RecordsTx) error) error
}

// RecordsTx is one transaction. Nothing may be changed while rows are visited, and
// their values are valid until yield returns.
type RecordsTx interface {
	Get(key string) (value []byte, found bool, err error)
	Put(key string, value []byte) error
	Delete(key string) error
	// Scan visits the rows whose key is from or greater, until yield returns false.
	Scan(from string, yield func(key string, value []byte) bool) error
	// ScanBack visits the rows whose key is from or less, the greatest first.
	ScanBack(from string, yield func(key string, value []byte) bool) error
}

// get reads one row; nil when there is none.
func get[T any](tx RecordsTx, key string) (*T, error) {
	value, found, err := tx.Get(key)
	if err != nil || !found {
		return nil, err
	}
	return decode[T](key, value)
}

func decode[T any](key string, value []byte) (*T, error) {
	row := new(T)
	if err := json.Unmarshal(value, row); err != nil {
		return nil, fmt.Errorf("read record %q: %w", key, err)
	}
	return row, nil
}

func put(tx RecordsTx, key string, row any) error {
	value, err := json.Marshal(row)
	if err != nil {
		return fmt.Errorf("write record %q: %w", key, err)
	}
	return tx.Put(key, value)
}

// each visits the rows whose key begins with prefix, in order. The visitor must not
// write.
func each[T any](tx RecordsTx, prefix string, visit func(key string, row *T) error) error {
	var failed error
	err := tx.Scan(prefix, func(key string, value []byte) bool {
		if !strings.HasPrefix(key, prefix) {
			return false
		}
		var row *T
		if row, failed = decode[T](key, value); failed == nil {
			failed = visit(key, row)
		}
		return failed == nil
	})
	return errors.Join(err, failed)
}

// rows returns those whose key begins with prefix, in order.
func rows[T any](tx RecordsTx, prefix string) ([]*T, error) {
	var found []*T
	err := each(tx, prefix, func(_ string, row *T) error {
		found = append(found, row)
		return nil
	})
	return found, err
}

// stamp is a time on the wire; nil for none.
func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
