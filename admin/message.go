package admin

import (
	adminv1 "sluice/admin/v1"
	"sluice/store"
)

// refMessage names an object.
func refMessage(id store.ID) *adminv1.Ref {
	return &adminv1.Ref{Kind: id.Kind, Namespace: id.Namespace, Name: id.Name}
}

// idOf is the object that a request names. Whether there is one, the store knows.
func idOf(field string, ref *adminv1.Ref) (store.ID, error) {
	id := store.ID{Kind: ref.GetKind(), Namespace: ref.GetNamespace(), Name: ref.GetName()}
	if id.Namespace == "" {
		id.Namespace = store.DefaultNamespace
	}
	var faults store.Faults
	if id.Kind == "" {
		faults = append(faults, store.Fault{Field: field + ".kind", Message: "is missing"})
	}
	if id.Name == "" {
		faults = append(faults, store.Fault{Field: field + ".name", Message: "is missing"})
	}
	if len(faults) > 0 {
		return id, faults
	}
	return id, nil
}

// manifests writes manifests into messages as long as there is room for them: one
// answer must not grow with what operators have in store.
type manifests struct {
	room  int  // bytes
	short bool // a manifest found no room
}

func (m *manifests) text(o *store.Object, r store.Resource) (string, error) {
	if r == nil || m.short {
		return "", nil
	}
	text, err := r.MarshalJSON()
	if err != nil {
		return "", err
	}
	if len(text) > m.room {
		m.short = true
		return "", nil
	}
	m.room -= len(text)
	return string(text), nil
}

// objectMessage is an object as it is. Its manifest carries the revision, so that
// who applies it again learns when somebody was faster.
func (m *manifests) objectMessage(o *store.Object) (*adminv1.Object, error) {
	return m.message(o, withRevision(o))
}

// withRevision is the resource of an object with its revision in the metadata.
func withRevision(o *store.Object) store.Resource {
	var copied store.Resource
	switch r := o.Resource.(type) {
	case nil:
		return nil
	case *store.GRPCRoute:
		c := *r
		copied = &c
	case *store.HTTPRoute:
		c := *r
		copied = &c
	case *store.Backend:
		c := *r
		copied = &c
	case *store.RPCPolicy:
		c := *r
		copied = &c
	case *store.Schema:
		c := *r
		copied = &c
	default:
		return r
	}
	copied.Metadata().ResourceVersion = o.Revision.String()
	return copied
}

func (m *manifests) message(o *store.Object, r store.Resource) (*adminv1.Object, error) {
	text, err := m.text(o, r)
	if err != nil {
		return nil, err
	}
	return &adminv1.Object{
		Ref:        refMessage(o.ID),
		Revision:   o.Revision.String(),
		Owner:      ownerMessage(o),
		Manifest:   text,
		State:      stateMessage(o.State),
		LastChange: lastChange(o),
		Deleted:    o.Deleted,
		Created:    stamp(o.Created),
		Lost:       uint32(len(o.Lost)),
	}, nil
}

// lastChange is what an object itself knows of the change that made it.
func lastChange(o *store.Object) *adminv1.Change {
	return &adminv1.Change{
		Time: stamp(o.Changed), Actor: o.Author.Actor, Via: o.Author.Via, Address: o.Author.Address,
		Reason: o.Author.Reason, Ref: refMessage(o.ID), Revision: o.Revision.String(),
	}
}

func ownerMessage(o *store.Object) *adminv1.Owner {
	kind := adminv1.Owner_KIND_UNSPECIFIED
	switch o.Owner.Kind {
	case store.OwnerFile:
		kind = adminv1.Owner_KIND_FILE
	case store.OwnerAPI:
		kind = adminv1.Owner_KIND_API
	case store.OwnerPeer:
		kind = adminv1.Owner_KIND_PEER
	}
	owner := &adminv1.Owner{Kind: kind, File: o.Owner.File}
	if o.Owner.Kind == store.OwnerPeer {
		owner.Node = o.FileNode
	}
	return owner
}

// stateMessage is the state of an object. A split that changes nothing, and only
// remembers where sticky values belong, is left out.
func stateMessage(s store.State) *adminv1.State {
	m := &adminv1.State{Disabled: s.Disabled, Drains: drainMessages(s.Drains)}
	for _, d := range s.Drains {
		if d.Endpoint == "" {
			m.Drained = true
		} else {
			m.DrainedEndpoints = append(m.DrainedEndpoints, d.Endpoint)
		}
	}
	for i := range s.Splits {
		if split := &s.Splits[i]; split.Overridden() {
			m.Splits = append(m.Splits, splitMessage(split))
		}
	}
	return m
}

func splitMessage(split *store.RuleSplit) *adminv1.RuleSplit {
	m := &adminv1.RuleSplit{
		Rule: split.Rule, Sticky: split.Sticky, Turns: split.Turns, SpillOver: split.SpillOver,
		Since: stamp(split.Since), By: split.By,
	}
	for _, share := range split.Shares {
		m.Shares = append(m.Shares, &adminv1.Share{Backend: share.Backend, Weight: share.Weight})
	}
	for _, pin := range split.Pins {
		m.Pins = append(m.Pins, &adminv1.Pin{Header: pin.Header, Value: pin.Value, Backend: pin.Backend})
	}
	return m
}

// changeMessage is a change with what was before it and after it.
func (m *manifests) changeMessage(c *store.Change) (*adminv1.Change, error) {
	msg := &adminv1.Change{
		Sequence: c.Seq, Time: stamp(c.Time), Action: c.Action, Ref: refMessage(c.ID),
	}
	var err error
	if c.Before != nil {
		if msg.Before, err = m.message(c.Before, c.Before.Resource); err != nil {
			return nil, err
		}
	}
	if c.Lost != nil {
		if msg.Lost, err = m.message(c.Lost, c.Lost.Resource); err != nil {
			return nil, err
		}
	}
	if c.After == nil {
		return msg, nil
	}
	by := c.After.Author
	msg.Actor, msg.Via, msg.Address, msg.Reason = by.Actor, by.Via, by.Address, by.Reason
	msg.Revision = c.After.Revision.String()
	msg.After, err = m.message(c.After, c.After.Resource)
	return msg, err
}
