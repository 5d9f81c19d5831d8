package store

import (
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
)

// checkForeign refuses what no node of good health would send, whatever this one has. A
// manifest that is here just so was read before.
func (o *Object) checkForeign(snap *Snapshot) error {
	if id, err := o.ID.normal(); err != nil || id != o.ID {
		return errors.Join(fmt.Errorf("%s: not the ID of an object", printable(o.ID.String())), err)
	}
	t := o.travelling()
	if err := t.checkVersion(); err != nil {
		return fmt.Errorf("%s: %w", o.ID, err)
	}
	for _, v := range append([]*Object{t}, t.Lost...) {
		if now, ok := snap.Get(o.ID); v.Deleted || ok && now.manifest == v.manifest {
			continue
		}
		manifest, err := v.Manifest()
		if err == nil {
			_, err = parseForeign(o.ID, manifest)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", o.ID, err)
		}
	}
	return nil
}

// checkVersion refuses a version with a past that cannot be, or which says of itself
// what nobody can have said.
func (o *Object) checkVersion() error {
	if err := o.checkPast(); err != nil {
		return err
	}
	for _, lost := range o.Lost {
		if err := lost.checkContent(); err != nil {
			return fmt.Errorf("revision %s, which lost: %w", lost.Revision, err)
		}
	}
	return o.checkContent()
}

// checkPast refuses a past that cannot be, of the versions that lost too.
func (o *Object) checkPast() error {
	if err := checkPast(o.Revision, o.Vector); err != nil {
		return err
	}
	if n, most := len(o.Lost), maxLost(o.ID.Kind); n > most {
		return fmt.Errorf("%d versions that lost, limit %d", n, most)
	}
	had := map[Revision]bool{o.Revision: true}
	for _, lost := range o.Lost {
		r := lost.Revision
		switch {
		case r.IsZero() || !isNode(r.Node) || had[r]:
			return fmt.Errorf("revision %s of one that lost: want another one", r)
		case !o.Vector.Seen(r) || r.Compare(o.Revision) > 0:
			return fmt.Errorf("revision %s lost to one that has not seen it", r)
		case len(lost.Vector) > 0 || len(lost.Lost) > 0:
			return fmt.Errorf("revision %s, which lost, has a past of its own", r)
		}
		had[r] = true
	}
	return nil
}

// checkContent refuses what nobody can have said.
func (o *Object) checkContent() error {
	if o.Deleted == (o.Resource != nil) {
		return errors.New("want either a resource or a deletion")
	}
	if o.Resource != nil && ResourceID(o.Resource) != o.ID {
		return fmt.Errorf("it declares %s", ResourceID(o.Resource))
	}
	if o.Created.IsZero() || o.Changed.IsZero() {
		return errors.New("it does not say when it was made, or changed")
	}
	if err := o.Author.check(); err != nil {
		return err
	}
	if err := o.Owner.check(); err != nil {
		return err
	}
	if o.FileNode != "" && !isNode(o.FileNode) {
		return fmt.Errorf("owner: node %s", quote(o.FileNode))
	}
	if o.ID.Kind == RegistrationKind && o.Owner.OfFile() {
		return errors.New("no file declares a registration")
	}
	if r, ok := o.Resource.(*Registration); ok {
		if faults := r.checkForeign(o.ID); len(faults) > 0 {
			return faults
		}
	}
	if faults := o.checkState(); len(faults) > 0 {
		return faults[:min(len(faults), maxForeignFaults)]
	}
	return nil
}

// check refuses what no node writes.
func (o Owner) check() error {
	switch {
	case o.Kind != OwnerAPI && o.Kind != OwnerPeer && o.Kind != OwnerFile:
		return fmt.Errorf("owner %s: want %s, %s or %s", quote(string(o.Kind)), OwnerAPI, OwnerPeer, OwnerFile)
	case len(o.File) > maxOwnerFile:
		return fmt.Errorf("owner: a file of %d bytes, limit %d", len(o.File), maxOwnerFile)
	case !utf8.ValidString(o.File) || checkControls(o.File) != "":
		return fmt.Errorf("owner: file %s: want text without control characters", quote(o.File))
	}
	return nil
}

// maxOwnerFile bounds the name of a file, in bytes: the paths of Linux are no longer.
const maxOwnerFile = 4096 + 32

// checkForeign is check without its Backend, which may come later or have changed: the
// effective set keeps to what that allows.
func (r *Registration) checkForeign(id ID) Faults {
	faults := r.check(id, Duration(maxLease))
	if len(faults) == 0 && checkPrintable(r.Spec.Token, maxNameLen) != "" {
		faults = Faults{{Field: "token", Message: quote(r.Spec.Token) + ": want the ID of a token"}}
	}
	if len(faults) == 0 && len(r.Labels)+len(r.Annotations) > 0 {
		faults = Faults{{Field: "metadata", Message: "a registration has neither labels nor annotations"}}
	}
	return faults
}

// checkTimes refuses what comes from too far in the future.
func (c *clock) checkTimes(o *Object) error {
	if err := c.check(o.Revision); err != nil {
		return err
	}
	latest := c.now().Add(maxAhead)
	for _, v := range append([]*Object{o}, o.Lost...) {
		for _, t := range [...]time.Time{v.Created, v.Changed} {
			if t.After(latest) {
				return fmt.Errorf("%s: made or changed at %s: %w", o.ID, t.UTC().Format(time.RFC3339), ErrClockAhead)
			}
		}
	}
	return nil
}
