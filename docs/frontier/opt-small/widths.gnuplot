set terminal svg size 1012,420 dynamic font 'sans,12' background 'white'
set output 'widths.svg'
set title 'opt-small, 0 % sparsity, groups of 64, calibrated on wikitext2.calib.txt: widths of budget-model 3' noenhanced
set style data histograms
set style histogram rowstacked
set style fill solid 0.9
set boxwidth 0.85
set yrange [0:100]
set ylabel 'channels, %'
set xtics rotate by 60 right noenhanced font ',10'
set key outside right noenhanced
$data << EOD
"0.self_attn.k_proj" 0 82.6172 17.3828 0 0
"0.self_attn.v_proj" 0 0 100 0 0
"0.self_attn.q_proj" 11.1328 84.7656 4.10156 0 0
"0.self_attn.out_proj" 0 15.625 84.375 0 0
"0.fc1" 0 2.05078 97.9492 0 0
"0.fc2" 0 97.6562 2.34375 0 0
"1.self_attn.k_proj" 100 0 0 0 0
"1.self_attn.v_proj" 100 0 0 0 0
"1.self_attn.q_proj" 0.585938 60.5469 38.8672 0 0
"1.self_attn.out_proj" 100 0 0 0 0
"1.fc1" 41.5039 58.4961 0 0 0
"1.fc2" 21.2891 78.7109 0 0 0
"2.self_attn.k_proj" 0 79.8828 20.1172 0 0
"2.self_attn.v_proj" 17.9688 82.0312 0 0 0
"2.self_attn.q_proj" 99.8047 0.195312 0 0 0
"2.self_attn.out_proj" 11.7188 88.2812 0 0 0
"2.fc1" 1.2207 98.7793 0 0 0
"2.fc2" 4.49219 95.5078 0 0 0
"3.self_attn.k_proj" 0 100 0 0 0
"3.self_attn.v_proj" 0 100 0 0 0
"3.self_attn.q_proj" 91.9922 8.00781 0 0 0
"3.self_attn.out_proj" 0.390625 99.6094 0 0 0
"3.fc1" 0.0488281 99.9023 0.0488281 0 0
"3.fc2" 3.90625 96.0938 0 0 0
"4.self_attn.k_proj" 0.390625 99.6094 0 0 0
"4.self_attn.v_proj" 0 98.0469 1.95312 0 0
"4.self_attn.q_proj" 27.9297 72.0703 0 0 0
"4.self_attn.out_proj" 0 95.7031 4.29688 0 0
"4.fc1" 0.0976562 98.7793 1.12305 0 0
"4.fc2" 0.195312 99.2188 0.585938 0 0
"5.self_attn.k_proj" 0 98.6328 1.36719 0 0
"5.self_attn.v_proj" 0 88.2812 11.7188 0 0
"5.self_attn.q_proj" 0.195312 99.8047 0 0 0
"5.self_attn.out_proj" 0 98.0469 1.95312 0 0
"5.fc1" 0 61.084 38.916 0 0
"5.fc2" 0 99.2188 0.78125 0 0
EOD
plot $data using 2:xtic(1) lc rgb '#313695' title '2 bits', $data using 3 lc rgb '#74add1' title '3 bits', $data using 4 lc rgb '#fee090' title '4 bits', $data using 5 lc rgb '#f46d43' title '6 bits', $data using 6 lc rgb '#a50026' title '8 bits'
