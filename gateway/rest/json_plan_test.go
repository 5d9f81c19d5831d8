package rest

import (
	"runtime"
	"testing"
	"time"
)

// Schemas are replaced whenever a backend comes up anew: what was made of those that are
// gone must not keep their descriptors.
func TestPlansGoWithTheirSchema(t *testing.T) {
	gone := make(chan struct{})
	func() {
		s := codecSchema(t, warehouse)
		m := codecMessage(t, s, "warehouse.v1.Crate")
		msg, err := FromJSON(nil, m, []byte(`{"inner":{"labelText":"x"},"any":{"@type":"x/warehouse.v1.Crate","labelText":"y"}}`), s, Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ToJSON(nil, m, msg, s); err != nil {
			t.Fatal(err)
		}
		plan := plansOf(s).of(m.Descriptor())
		if plan != plansOf(s).of(m.Descriptor()) {
			t.Error("a plan is made twice")
		}
		runtime.AddCleanup(plan, func(c chan struct{}) { close(c) }, gone)
		runtime.KeepAlive(s)
	}()
	late := time.After(10 * time.Second)
	for {
		runtime.GC()
		select {
		case <-gone:
			return
		case <-late:
			t.Fatal("the plan of a type whose schema is gone is still kept")
		default:
		}
	}
}
