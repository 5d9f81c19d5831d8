package store

import "crypto/sha256"

// otherWord is what the other nodes have of an object that a file here declares
// otherwise: files are the truth of the node that reads them, and what travels under one
// revision is the same everywhere.
type otherWord struct {
	resource Resource
	manifest [sha256.Size]byte
	file     string // of another node, file:line
	node     string // which one, as far as it is known
}

// Elsewhere is what the other nodes have in place of Resource, because a file of this
// node says otherwise; nil when they have the same.
func (o *Object) Elsewhere() Resource {
	if o.elsewhere == nil {
		return nil
	}
	return o.elsewhere.resource
}

// travelling is the version as other nodes have it.
func (o *Object) travelling() *Object {
	if o == nil || o.elsewhere == nil {
		return o
	}
	t := o.copy()
	t.Resource, t.manifest, t.elsewhere = o.elsewhere.resource, o.elsewhere.manifest, nil
	t.Owner, t.FileNode = Owner{Kind: OwnerPeer, File: o.elsewhere.file}, o.elsewhere.node
	return t
}

// underFile has a file of a node, this one, declare a version that a file declares elsewhere.
func (o *Object) underFile(word *fileWord, node string) error {
	other := &otherWord{o.Resource, o.manifest, o.Owner.File, o.FileNode}
	if err := o.setResource(word.resource); err != nil {
		return err
	}
	if o.manifest == other.manifest {
		o.Resource, other = other.resource, nil
	}
	o.Owner, o.FileNode, o.elsewhere = Owner{Kind: OwnerFile, File: word.file}, node, other
	return nil
}

// OfFile tells whether a file declares the object, here or at another node.
func (o Owner) OfFile() bool { return o.Kind == OwnerFile || o.File != "" }

// foreign is the owner as other nodes see it.
func (o Owner) foreign() Owner { return Owner{Kind: OwnerPeer, File: o.File} }
