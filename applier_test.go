package main

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"sluice/gateway"
	"sluice/store"
)

// gatewayThatCannot puts all in force but what it has problems with.
type gatewayThatCannot struct {
	gatewayPart
	problems gateway.Problems
}

func (g gatewayThatCannot) Apply(*store.Set) error     { return g.problems }
func (g gatewayThatCannot) Problems() gateway.Problems { return g.problems }

// A gateway that has put a change in force, but not the object that is asked for, does not
// obey; what is wrong with others is another matter.
func TestApplierObeysWhatCouldBePutInForce(t *testing.T) {
	s, err := store.Open(store.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	bad := store.ID{Kind: store.BackendKind, Namespace: "default", Name: "bad"}
	good := store.ID{Kind: store.BackendKind, Namespace: "default", Name: "good"}
	a := newApplier(s, gatewayThatCannot{problems: gateway.Problems{bad: errors.New("no file ca.pem")}}, slog.New(slog.DiscardHandler))
	a.catchUp()
	if err := a.Obeys(t.Context(), s.Snapshot().Seq(), []store.ID{good}); err != nil {
		t.Errorf("of what is in force: %v", err)
	}
	err = a.Obeys(t.Context(), s.Snapshot().Seq(), []store.ID{good, bad})
	if err == nil || !strings.Contains(err.Error(), "bad") || !strings.Contains(err.Error(), "no file ca.pem") {
		t.Errorf("of what cannot be: %v", err)
	}
}
