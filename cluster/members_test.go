package cluster

import (
	"fmt"
	"testing"
	"time"
)

// Pods that come and go with empty disks leave room for others: whoever is gone the
// longest is forgotten, and nobody who lives.
func TestMembershipForgetsTheLongestGoneForNewcomers(t *testing.T) {
	begin := time.Now()
	m := &membership{members: map[string]*member{}}
	for i := range maxMembers {
		m.members[fmt.Sprint("n", i)] = &member{state: Left, since: begin.Add(time.Duration(i) * time.Second)}
	}
	m.members["n0"].state = Alive
	if !m.hasRoomFor("new") || len(m.members) != maxMembers-1 || m.members["n1"] != nil || m.members["n0"] == nil {
		t.Errorf("%d members are left, n0 %v, n1 %v", len(m.members), m.members["n0"], m.members["n1"])
	}
	for _, n := range m.members {
		n.state = Alive
	}
	m.members["new"] = &member{state: Alive}
	if m.hasRoomFor("another") || !m.hasRoomFor("n0") {
		t.Error("live members make room, or have none")
	}
}
