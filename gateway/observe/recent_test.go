package observe

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestMetricsRecentLooksBackAMinute starts one RPC each second for three minutes.
func TestMetricsRecentLooksBackAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New()
		busy, idle := m.Use(Key{"r", "n", "busy"}), m.Use(Key{"r", "n", "idle"})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- m.Run(ctx) }()
		time.Sleep(time.Millisecond) // RPCs and samples are not in the same moment
		for second := range 180 {
			busy.Start()
			got, want := m.Recent(busy), uint64(min(second+1, 60))
			if got < want || got > want+5 {
				t.Fatalf("second %d: %d RPCs in the last minute, want %d to %d", second, got, want, want+5)
			}
			time.Sleep(time.Second)
		}
		if got := m.Recent(idle); got != 0 {
			t.Errorf("%d RPCs of a series that has had none", got)
		}
		time.Sleep(66 * time.Second)
		if got := m.Recent(busy); got != 0 {
			t.Errorf("%d RPCs, a minute after the last", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
