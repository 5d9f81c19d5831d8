package store

import (
	"errors"
	"fmt"
	"slices"
	"testing"
)

func TestRecordsAreKept(t *testing.T) {
	s := openStore(t, Options{})
	accounts := s.Records("accounts")
	for i := range 10 {
		if err := accounts.Put(fmt.Sprintf("user%d", i), []byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := accounts.Delete("user3"); err != nil {
		t.Fatal(err)
	}
	failed := errors.New("failed")
	err := accounts.Update(func(tx RecordsTx) error {
		if err := tx.Put("user4", []byte("changed")); err != nil {
			return err
		}
		if err := tx.In("sessions").Put("s", nil); err != nil {
			return err
		}
		return failed
	})
	if !errors.Is(err, failed) {
		t.Errorf("error %v", err)
	}
	s = reopen(t, s)
	accounts = s.Records("accounts")
	if v, ok, err := accounts.Get("user4"); err != nil || !ok || !slices.Equal(v, []byte{4}) {
		t.Errorf("user4 is %q, %v, %v", v, ok, err)
	}
	if _, ok, err := s.Records("sessions").Get("s"); ok || err != nil {
		t.Errorf("what failed is there: %v", err)
	}
	scan := func(scan func(string, func(string, []byte) bool) error, from string) (keys []string) {
		if err := scan(from, func(key string, _ []byte) bool {
			keys = append(keys, key)
			return len(keys) < 3
		}); err != nil {
			t.Error(err)
		}
		return keys
	}
	if got := scan(accounts.Scan, ""); !slices.Equal(got, []string{"user0", "user1", "user2"}) {
		t.Errorf("scanned %q", got)
	}
	if got := scan(accounts.Scan, "user3"); !slices.Equal(got, []string{"user4", "user5", "user6"}) {
		t.Errorf("scanned %q", got)
	}
	if got := scan(accounts.ScanBack, ""); !slices.Equal(got, []string{"user9", "user8", "user7"}) {
		t.Errorf("scanned back %q", got)
	}
	if got := scan(accounts.ScanBack, "user4x"); !slices.Equal(got, []string{"user4", "user2", "user1"}) {
		t.Errorf("scanned back %q", got)
	}
	if err := accounts.Put("", nil); err == nil {
		t.Error("a record without a key")
	}
	if s.Snapshot().Seq() != 0 {
		t.Error("a record is a change")
	}
}
