// Package redisstore keeps the shared list of package revocation in Redis, from 7.0 on, or
// in Valkey:
//
//	store, err := redisstore.New(redisstore.Config{
//		Address:  "redis.internal:6379",
//		Username: "m2mauth-replica",
//		Password: os.Getenv("REDIS_PASSWORD"),
//		TLS:      &tls.Config{},
//	})
//	…
//	list, err := revocation.New(revocation.Options{Store: store, …})
//
// The log is one stream at one key. Only its end is ever written to. Whatever else happens
// to it is noticed: entries that were deleted or trimmed, a flush, an eviction, and a
// failover or a backup that lost its end.
//
// # The server
//
// An entry that was acknowledged must outlive the server, and its machine's power:
//
//	appendonly yes
//	appendfsync always
//	maxmemory-policy noeviction
//
// [Store.Durable] asks the server whether it is so. Redis replicates asynchronously: a failover to another server may lose the last entries.
// The replicas notice that, and those that may append write them back.
//
// # Rights
//
// Replicas read. Who revokes (a tool, an admin handler, Logto's webhooks) may append as
// well. Nobody needs more, and the default user should be off:
//
//	user default off
//	user m2mauth-replica on >PASSWORD resetchannels -@all +multi +exec +xinfo|stream +xrange +xread %R~{m2mauth}:revocations
//	user m2mauth-revoke on >PASSWORD resetchannels -@all +multi +exec +xinfo|stream +xrange +xread +xadd ~{m2mauth}:revocations
//
// Add +select for another database than 0, and +cluster|slots and +command for a cluster. If no
// replica may append, nobody writes back what the server has lost: let a process that
// runs all the time do so, such as the receiver of the webhooks.
package redisstore
