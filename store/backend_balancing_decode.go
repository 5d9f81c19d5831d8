package store

import (
	"strings"
	"time"
)

// Bounds of what a LoadBalancing may say.
const (
	maxLoadBound    = 10_000 // percent: a hundred times the fair share is as good as none
	minSlowStart    = 100 * time.Millisecond
	maxSlowStart    = time.Hour
	minExponent     = 0.1
	maxExponent     = 10
	minAffinityTTL  = time.Second
	defaultExponent = 1
)

func readLoadBalancing(v *value) LoadBalancing {
	m := v.mapping()
	defer m.finish()
	l := LoadBalancing{
		Policy:          oneOf(m.optional("policy"), "policy", LeastRequest, LeastRequest, PeakEWMA, RoundRobin, RingHash, Maglev),
		HashOn:          readHashOn(m.optional("hashOn")),
		LoadBound:       m.optional("loadBound").integer(0, 100, maxLoadBound),
		SlowStart:       readSlowStart(m.optional("slowStart")),
		ZonePreference:  readZonePreference(m.optional("zonePreference")),
		SessionAffinity: readSessionAffinity(m.optional("sessionAffinity")),
	}
	if threshold := m.optional("panicThreshold"); !threshold.absent() {
		percent := threshold.integer(DefaultPanicThreshold, 0, 100)
		l.PanicThreshold = &percent
	}
	if l.Policy != "" {
		checkForPolicy(m, l.Policy)
	}
	l.setDefaults()
	return l
}

// checkForPolicy reports what the policy needs and has not, or has and does not heed.
func checkForPolicy(m *mapping, policy Policy) {
	if policy.Hashes() {
		m.required("hashOn")
		if slow := m.optional("slowStart"); !slow.absent() {
			slow.fault("does not apply to policy %s: an endpoint has its whole share of the keys at once", policy)
		}
		return
	}
	for _, name := range [...]string{"hashOn", "loadBound"} {
		if v := m.optional(name); !v.absent() {
			v.fault("needs policy %s or %s", RingHash, Maglev)
		}
	}
}

func readHashOn(v *value) *HashOn {
	if v.absent() {
		return nil
	}
	m := v.mapping()
	defer m.finish()
	m.exactlyOne("header", "path", "clientAddress")
	return &HashOn{
		Header:        strings.ToLower(m.optional("header").word(checkHeaderName)),
		Path:          m.optional("path").yes(),
		ClientAddress: m.optional("clientAddress").yes(),
	}
}

func readSlowStart(v *value) *SlowStart {
	if v.absent() {
		return nil
	}
	m := v.mapping()
	defer m.finish()
	return &SlowStart{
		Window:    m.required("window").duration(minSlowStart, minSlowStart, maxSlowStart),
		Exponent:  m.optional("exponent").number(defaultExponent, minExponent, maxExponent),
		MinWeight: m.optional("minWeight").integer(DefaultMinWeight, 1, 100),
	}
}

func readZonePreference(v *value) *ZonePreference {
	if v.absent() {
		return nil
	}
	m := v.mapping()
	defer m.finish()
	return &ZonePreference{SpillBelow: m.optional("spillBelow").integer(DefaultSpillBelow, 1, 100)}
}

func readSessionAffinity(v *value) *SessionAffinity {
	if v.absent() {
		return nil
	}
	m := v.mapping()
	defer m.finish()
	m.exactlyOne("header", "cookie")
	ttl := m.optional("ttl")
	affinity := &SessionAffinity{
		Header: strings.ToLower(m.optional("header").word(checkModifiedName)),
		Cookie: m.optional("cookie").word(checkCookieName),
		TTL:    ttl.duration(0, minAffinityTTL, maxTimeout),
	}
	if !ttl.absent() && m.optional("cookie").absent() {
		ttl.fault("needs cookie: a header lives as long as the client keeps it")
	}
	return affinity
}

// setDefaults fills in what holds for a text that does not say.
func (l *LoadBalancing) setDefaults() {
	if l.Policy == "" {
		l.Policy = LeastRequest
	}
	if l.LoadBound == 0 && l.Policy.Hashes() {
		l.LoadBound = DefaultLoadBound
	}
	if s := l.SlowStart; s != nil {
		if s.Exponent == 0 {
			s.Exponent = defaultExponent
		}
		if s.MinWeight == 0 {
			s.MinWeight = DefaultMinWeight
		}
	}
	if z := l.ZonePreference; z != nil && z.SpillBelow == 0 {
		z.SpillBelow = DefaultSpillBelow
	}
}
