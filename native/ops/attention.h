/* Softmax attention without a T x T matrix in memory, grouped-query heads (Hkv divides Hq).
 * Element (b,t,h,d) of q lies at q_offset + b*q_batch + t*q_row + h*D + d, so that q, k and v may be one packed
 * tensor; likewise k and v (head h of q reads head h/(Hq/Hkv) of k, v). o and do are dense (B,Tq,Hq*D).
 * causal: query t (absolute position t + q_position) sees keys 0..t+q_position. lse (B,Hq,Tq) f32 is
 * log(sum(exp(scale*q.k))). dtypes: q,k,v,o all f32, bf16 or f16; sums in f32.
 * backward writes dq,dk,dv in the layouts of q,k,v; the three may be one packed tensor.
 * dropout: each weight is zeroed with probability p, else scaled by 1/(1-p), drawn as in random.h from (seed, site)
 * with index (((sample+b) * heads_full + head+h) * T_full + query+t) * T_full + key+s, where sample, head, query and
 * key say where this part begins in the whole: any cut over samples, heads or sequence draws what the whole would.
 * lse is that of the weights before dropout. p = 0: none of these counts.
 * In parts: the Tq queries are tokens [o_first, o_first + Tq) of o and do (B,o_T,Hq*D) and lse (B,Hq,o_T). o, dq, dk, dv
 * may be f32 beside bf16 or f16. continue != 0: forward joins these keys to those whose o (then f32) and lse are there,
 * backward adds to dq, dk, dv (then f32); its o and lse are those over all keys.
 * rotary: y = x rotated pairwise (d, d+D/2) by table[t+position], from t = split on table[second+t-split]: cos in
 * [0,D/2), sin in [D/2,D), f32;
 * x, y dense (B,T,H*D), y may be x; inverse != 0 rotates back (its own backward). */
#ifndef ZS_OPS_ATTENTION_H
#define ZS_OPS_ATTENTION_H
enum { ATTENTION_O, ATTENTION_LSE, ATTENTION_Q, ATTENTION_K, ATTENTION_V };
enum { ATTENTION_DQ, ATTENTION_DK, ATTENTION_DV, ATTENTION_BACKWARD_DO, ATTENTION_BACKWARD_Q, ATTENTION_BACKWARD_K,
       ATTENTION_BACKWARD_V, ATTENTION_BACKWARD_O, ATTENTION_BACKWARD_LSE };
enum { ATTENTION_B, ATTENTION_TQ, ATTENTION_TK, ATTENTION_HQ, ATTENTION_HKV, ATTENTION_D, ATTENTION_SCALE,
       ATTENTION_CAUSAL, ATTENTION_Q_POSITION, ATTENTION_Q_OFFSET, ATTENTION_Q_ROW, ATTENTION_Q_BATCH,
       ATTENTION_K_OFFSET, ATTENTION_K_ROW, ATTENTION_K_BATCH, ATTENTION_V_OFFSET, ATTENTION_V_ROW, ATTENTION_V_BATCH,
       ATTENTION_P, ATTENTION_SEED, ATTENTION_SITE, ATTENTION_SAMPLE, ATTENTION_HEAD, ATTENTION_HEADS_FULL,
       ATTENTION_QUERY, ATTENTION_KEY, ATTENTION_T_FULL, ATTENTION_CONTINUE, ATTENTION_O_FIRST, ATTENTION_O_T };
enum { ROTARY_Y, ROTARY_X, ROTARY_TABLE };
enum { ROTARY_B, ROTARY_T, ROTARY_H, ROTARY_D, ROTARY_POSITION, ROTARY_INVERSE, ROTARY_SPLIT, ROTARY_SECOND };
#endif
