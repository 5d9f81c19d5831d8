package main

import (
	"sluice/admin"
	"sluice/gateway"
	"sluice/store"
)

// Observed tells what the rules of one route did, in the words of the door.
func (a *applier) Observed(route store.ID) []admin.ObservedRule {
	var rules []admin.ObservedRule
	for _, r := range a.gateway.Observed(route) {
		rules = append(rules, admin.ObservedRule{Rule: r.Rule, Shares: observedShares(r.Shares)})
	}
	return rules
}

// Explain tells which rule an RPC would meet, in the words of the door.
func (a *applier) Explain(authority, path string, headers [][2]string) admin.Explanation {
	e := a.gateway.Explain(authority, path, headers)
	told := admin.Explanation{Verdict: e.Verdict, Backend: e.Backend, Because: e.Because, Shares: observedShares(e.Shares)}
	for _, c := range e.Candidates {
		told.Candidates = append(told.Candidates, admin.Candidate(c))
	}
	return told
}

// Addr is where RPCs come in.
func (a *applier) Addr() string { return a.gateway.Addr().String() }

func observedShares(shares []gateway.ObservedShare) (told []admin.ObservedShare) {
	for _, s := range shares {
		told = append(told, admin.ObservedShare(s))
	}
	return told
}
