package main

import (
	"sluice/admin"
)

// Endpoints tells how the endpoints of a backend are, in the words of the door.
func (a *applier) Endpoints(backend string) (told []admin.ObservedEndpoint) {
	for _, e := range a.gateway.Endpoints(backend) {
		told = append(told, admin.ObservedEndpoint{
			Address: e.Address, Source: e.Source, Zone: e.Zone, Version: e.Version, Weight: e.Weight,
			State: e.State, Why: e.Why, Since: e.Since, Active: e.Active, Connections: e.Connections,
			RPCs: e.RPCs, Success: e.Success, P99: e.P99,
		})
	}
	return told
}

// Rebalance moves long streams of a backend.
func (a *applier) Rebalance(backend string, percent int) (moved int, err error) {
	return a.gateway.Rebalance(backend, percent)
}
