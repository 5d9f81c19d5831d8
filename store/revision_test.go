package store

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"
)

func TestRevisionReadsWhatItWrites(t *testing.T) {
	for _, r := range []Revision{
		{1763766000123, 0, "k3f9x2ab"},
		{1, 4294967295, "a"},
		{9223372036854775807, 7, "node-1"},
	} {
		got, err := ParseRevision(r.String())
		if err != nil || got != r {
			t.Errorf("ParseRevision(%q) = %v, %v", r.String(), got, err)
		}
	}
	if got := (Revision{}).String(); got != "" {
		t.Errorf("no revision is written %q", got)
	}
}

func TestParseRevisionRefusesWhatIsNone(t *testing.T) {
	for _, s := range []string{
		"", "12345", "1.0", "1@a", ".0@a", "1.@a", "1.0@", "-1.0@a", "0.0@a", "+1.0@a", "01.0@a", "1.00@a",
		"1.4294967296@a", "9223372036854775808.0@a", "1.0@A", "1.0@a b", "1.0@a@b", " 1.0@a", "1.0@a\n",
		"1763766000123.0@" + string(make([]byte, 65)),
	} {
		if got, err := ParseRevision(s); err == nil {
			t.Errorf("ParseRevision(%q) = %v, want an error", s, got)
		}
	}
}

func FuzzParseRevision(f *testing.F) {
	f.Add("1763766000123.0@k3f9x2ab")
	f.Fuzz(func(t *testing.T, s string) {
		if r, err := ParseRevision(s); err == nil && r.String() != s {
			t.Errorf("ParseRevision(%q) is written %q", s, r)
		}
	})
}

// Whatever the clock on the wall does, a later revision is higher, and higher than
// all that came from elsewhere.
func TestClockNeverGoesBack(t *testing.T) {
	wall := newTestClock()
	c := &clock{node: "a", now: wall.Now}
	rng := rand.New(rand.NewPCG(1, 2))
	var last Revision
	for range 10_000 {
		switch rng.IntN(6) {
		case 0:
			wall.pass(-time.Duration(rng.Int64N(int64(10 * 365 * 24 * time.Hour))))
		case 1:
			wall.pass(time.Duration(rng.Int64N(int64(time.Second))))
		case 2:
			wall.pass(time.Hour)
		case 3:
			foreign := Revision{last.Wall + rng.Int64N(1000), rng.Uint32N(3), "b"}
			c.advance(foreign)
			if foreign.after(last) {
				last = foreign
			}
		}
		r := c.peek()
		if !r.after(last) {
			t.Fatalf("revision %s after %s", r, last)
		}
		c.advance(r)
		last = r
	}
}

func TestClockCounterMovesOnToTheNextMillisecond(t *testing.T) {
	wall := newTestClock()
	last := Revision{wall.Now().UnixMilli() + 5, 1<<32 - 1, "a"}
	c := &clock{node: "a", now: wall.Now, last: last}
	if r := c.peek(); !r.after(last) || r.Wall != last.Wall+1 {
		t.Errorf("revision %s after %s", r, last)
	}
}

func TestClockRefusesWhatIsTooFarAhead(t *testing.T) {
	wall := newTestClock()
	c := &clock{node: "a", now: wall.Now}
	now := wall.Now().UnixMilli()
	if err := c.check(Revision{now + 60_000, 9, "b"}); err != nil {
		t.Errorf("60 s ahead: %v", err)
	}
	if err := c.check(Revision{now - 1e12, 9, "b"}); err != nil {
		t.Errorf("long ago: %v", err)
	}
	err := c.check(Revision{now + 60_001, 0, "b"})
	if !errors.Is(err, ErrClockAhead) {
		t.Errorf("60.001 s ahead: %v, want ErrClockAhead", err)
	}
}

// The clock of a store survives a restart, whatever happened to the wall's meanwhile.
func TestStoreRevisionsNeverGoBack(t *testing.T) {
	wall := newTestClock()
	s := openStore(t, Options{Now: wall.Now})
	node := s.Node()
	var last Revision
	for i, jump := range []time.Duration{0, time.Second, -time.Hour, -24 * 365 * time.Hour, 10 * 365 * 24 * time.Hour, -10 * 365 * 24 * time.Hour} {
		wall.pass(jump)
		applyText(t, s, splitText("cart", "cart-v1="+string(rune('1'+i))))
		r := mustGet(t, s, cart).Revision
		if r.Compare(last) <= 0 || r.Node != node {
			t.Errorf("revision %s after %s", r, last)
		}
		last = r
		s = reopen(t, s)
		if s.Node() != node {
			t.Errorf("node %s after a restart, %s before", s.Node(), node)
		}
	}
}

// A deletion's revision is remembered, too: what comes after it is later even when
// the tombstone is gone.
func TestStoreRevisionsOutliveTombstones(t *testing.T) {
	wall := newTestClock()
	s := openStore(t, Options{Now: wall.Now})
	applyText(t, s, backendText("cart-v1", ""))
	mustWrite(t, s, Txn{Ops: []Op{{ID: cartV1, Delete: true}}})
	last := s.Snapshot().Tombstones()[0].Revision
	wall.pass(25 * time.Hour)
	if err := s.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	wall.pass(-1000 * time.Hour)
	s = reopen(t, s)
	applyText(t, s, backendText("cart-v1", ""))
	if r := mustGet(t, s, cartV1).Revision; r.Compare(last) <= 0 {
		t.Errorf("revision %s after %s", r, last)
	}
}
