package route

import (
	"slices"
	"strings"

	"sluice/store"
)

// Modifier changes the headers of a message. Names are in lower case, and none is
// in two of the lists.
type Modifier struct {
	Set    []store.Header // take the place of every value
	Add    []store.Header // come after the values that are there
	Remove []string       // have no value afterwards

	drops   []string // the names of Set and Remove
	lengths uint64   // bit n&63 for each n = len(name) in drops
}

// Drops tells whether fields of this name are left out of the message: those that
// are removed, and those that are set. The fields of Set and Add follow the rest.
func (m *Modifier) Drops(name string) bool {
	return m.lengths&(1<<(len(name)&63)) != 0 && slices.Contains(m.drops, name)
}

// newModifiers are nil where no filter changes anything.
func newModifiers(filters []store.Filter) (request, response *Modifier) {
	for i := range filters {
		switch f := &filters[i]; f.Type {
		case store.RequestHeaderModifier:
			request = newModifier(f.RequestHeaderModifier)
		case store.ResponseHeaderModifier:
			response = newModifier(f.ResponseHeaderModifier)
		}
	}
	return request, response
}

func newModifier(spec *store.HeaderModifier) *Modifier {
	if spec == nil || len(spec.Set)+len(spec.Add)+len(spec.Remove) == 0 {
		return nil
	}
	m := &Modifier{Set: lowerNames(spec.Set), Add: lowerNames(spec.Add)}
	for _, name := range spec.Remove {
		m.Remove = append(m.Remove, strings.ToLower(name))
	}
	for _, h := range m.Set {
		m.drops = append(m.drops, h.Name)
	}
	m.drops = append(m.drops, m.Remove...)
	for _, name := range m.drops {
		m.lengths |= 1 << (len(name) & 63)
	}
	return m
}

func lowerNames(headers []store.Header) []store.Header {
	lower := slices.Clone(headers)
	for i := range lower {
		lower[i].Name = strings.ToLower(lower[i].Name)
	}
	return lower
}
