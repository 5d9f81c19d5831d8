// Package cluster makes several gateways one: which of them live, and what all of them
// have been told, by gossip (hashicorp/memberlist). There is no leader and no store
// beside their own. What is changed at one node is in force at the others within a
// second; what two nodes changed unknown to each other is decided alike everywhere, by
// store.Merge, and shown. A node that is alone works; one that is cut off goes on with
// what it knows.
//
// Membership is memberlist's; what travels, and what becomes of it, is ours:
//
//	membership  who is there: joining, rejoining, leaving, keys, reachability
//	exchange    what they tell each other: changes, digests, comparisons
package cluster
