package store

import (
	"strings"
	"time"
)

// Bounds of what a DNS, a Registering and a Registration may say.
const (
	minRefresh       = time.Second
	maxRefresh       = time.Hour
	maxDiscovered    = 10_000 // endpoints of one backend, by DNS or by registration
	minLease         = time.Second
	maxLease         = 24 * time.Hour
	maxEndpointLabel = 63 // bytes of a zone or a version
)

func readDNS(v *value) *DNS {
	if v.absent() {
		return nil
	}
	m := v.mapping()
	defer m.finish()
	m.exactlyOne("name", "srv")
	port := m.optional("port")
	switch {
	case !m.optional("name").absent():
		m.required("port")
	case !port.absent() && !m.optional("srv").absent():
		port.fault("is part of the records of srv")
	}
	d := &DNS{
		Name:         m.optional("name").word(checkLookup),
		Port:         port.integer(0, 1, 65535),
		SRV:          m.optional("srv").word(checkLookup),
		Refresh:      m.optional("refresh").duration(DefaultRefresh, minRefresh, maxRefresh),
		MaxEndpoints: m.optional("maxEndpoints").integer(DefaultMaxEndpoints, 1, maxDiscovered),
		Server:       m.optional("server").word(checkAddress),
	}
	return d
}

// checkLookup is for a name that is asked for, with or without the dot at its end.
func checkLookup(s string) string {
	if isAddress(s) {
		return "want a name, not an address: that is one of endpoints"
	}
	return checkHost(strings.TrimSuffix(s, "."))
}

func readRegistering(v *value) *Registering {
	if v.absent() {
		return nil
	}
	m := v.mapping()
	defer m.finish()
	return &Registering{
		MaxEndpoints: m.optional("maxEndpoints").integer(DefaultMaxEndpoints, 1, maxDiscovered),
		MaxLease:     m.optional("maxLease").duration(DefaultMaxLease, minLease, maxLease),
	}
}

// registering is what the Backend takes, with defaults; nil when it takes nobody.
func (s *BackendSpec) registering() *Registering {
	if s.Registration == nil {
		return nil
	}
	r := *s.Registration
	r.setDefaults()
	return &r
}

func (d *DNS) setDefaults() {
	if d.Refresh == 0 {
		d.Refresh = Duration(DefaultRefresh)
	}
	if d.MaxEndpoints == 0 {
		d.MaxEndpoints = DefaultMaxEndpoints
	}
}

func (r *Registering) setDefaults() {
	if r.MaxEndpoints == 0 {
		r.MaxEndpoints = DefaultMaxEndpoints
	}
	if r.MaxLease == 0 {
		r.MaxLease = Duration(DefaultMaxLease)
	}
}
